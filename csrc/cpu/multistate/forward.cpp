// Neurons are processed in tiles, a tile in segments of steps, and a segment in groups of vectors, whose states stay in
// registers for all steps of the segment.
#include "../../types.h"

#include "../common/dtype.h"
#include "../common/kernels.h"
#include "tile.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// The neurons from begin to end, counted without the tails of their groups.
template <class T, class Of>
void forward_blocks(const MultistateForward& a, bool streaming, int64_t begin, int64_t end) {
  using S = compute_t<T>;
  Tile<Of, S> tile;
  prepare(tile, a, end - begin);
  each_tile<S>(a, kTile, begin, end, [&](int64_t first, int64_t neurons) {
    place(tile, a, first, neurons);
    for (int64_t index = 0; index < segments(a); ++index) {
      const Segment segment(a, index);
      const int64_t at = segment.from * a.group + tile.place;
      T* const spikes = static_cast<T*>(a.out) + at;
      S* const states = static_cast<S*>(a.out) + at;
      const bool record = a.output == Output::states;
      run_tile<T>(a, tile, segment, kTile, [&](int i, int t, const auto&, const auto& now) DEAL_FLAT {
        if (record) put(states + t * a.group + i, now.left.at[0], streaming);
        else put(spikes + t * a.group + i, now.s, streaming);
      });
    }
    for (int k = 0; k < tile.kStates; ++k)
      if (a.states[k])
        __builtin_memcpy(static_cast<S*>(a.states[k]) + first, tile.states[k].at, sizeof(S) * tile.neurons);
  });
  if (streaming) stream_fence();
}

template <class T, class Of>
void forward_tail(const MultistateForward& a, int64_t first) {
  using S = compute_t<T>;
  InputTail<S> tail(a, first);
  MultistateForward part = tail.template inputs<T>(a);
  if (a.output == Output::states) part.out = tail.template steps_of_result<S>(a.out);
  else part.out = tail.template steps_of_result<T>(a.out);
  for (auto& state : part.states) state = tail.template result<S>(state, 1, 0);
  forward_blocks<T, Of>(part, false, 0, kQuad<S>);
}

template <class T>
void forward(const MultistateForward& a, int threads) {
  // Double is compiled for the baseline alone, which serves every instruction set.
  if constexpr (sizeof(T) == 8 && DEAL_VECTOR_BYTES > 16) {
    baseline::multistate_forward(a, threads);
  } else {
    const size_t element = a.output == Output::states ? sizeof(compute_t<T>) : sizeof(T);
    const bool streaming = streams(a.out, a.group * int64_t(element), a.steps * (a.neurons / a.group));
    with_model(a.model, [&](auto of) {
      using Of = decltype(of);
      each_neuron<T>(a, a.group, threads,
                     [&](int64_t begin, int64_t end, int) { forward_blocks<T, Of>(a, streaming, begin, end); },
                     [&](int64_t first, int) { forward_tail<T, Of>(a, first); });
    });
  }
}

}  // namespace

void multistate_forward(const MultistateForward& a, int threads) {
  with_type(a.dtype, [&](auto type) { forward<decltype(type)>(a, threads); });
}

}  // namespace DEAL_ISA
}  // namespace deal
