// Only x was kept from the forward pass. A tile goes through its segments twice: from first to last to find the states at
// their starts, and from last to first to find the states before every step, and to propagate the gradients.
#include "../../types.h"

#include "../common/dtype.h"
#include "../common/kernels.h"
#include "tile.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kBackwardTile = 128;  // small: computation and memory traffic alternate quickly

// What the backward pass keeps of a tile: the states before the steps of one segment, and what it carries over to the
// previous segment.
template <class Tile, class S>
struct Tape {
  alignas(64) S entered[kSegment][Tile::kStates][kBackwardTile];
  Row<S> grads[Tile::kStates], shares[Tile::kParameters];
  S* starts;  // the states at the start of every segment

  S* start(int64_t segment, int state) const { return starts + (segment * Tile::kStates + state) * kBackwardTile; }
};

template <class T, class Tile, class S>
void replay(const MultistateBackward& a, Tile& tile, Tape<Tile, S>& tape, const Segment& segment) {
  const T* const grad = static_cast<const T*>(a.grad) + segment.from * a.group + tile.place;
  run_tile<T>(a, tile, segment, kBackwardTile, [&](int i, int t, const auto& entered, const auto&) DEAL_FLAT {
    prefetch<typename Tile::V>(grad + t * a.group + i);
    store_values(tape.entered[t][0] + i, kBackwardTile, entered);
  });
}

// Calls next(kind), compiled separately for the surrogates.
template <class S, class Next>
DEAL_INLINE void split_surrogate(const Neuron& neuron, const Next& next) {
  if constexpr (kCopies<S>)
    split<&Neuron::surrogate, Surrogate::sigmoid, Surrogate::atan, Surrogate::rectangle>(neuron, next);
  else next(neuron);
}

// Propagates the gradients of the states back through a segment.
template <bool shares, class T, class Tile, class S>
DEAL_INLINE void reverse(const MultistateBackward& a, const Neuron& kind, const Tile& tile, Tape<Tile, S>& tape,
                         const Segment& segment, bool streaming) {
  using V = typename Tile::V;
  const int64_t from = segment.from * a.group + tile.place;
  const T* const grad_spikes = static_cast<const T*>(a.grad) + from;
  const S* const grad_states = static_cast<const S*>(a.grad) + from;
  T* const grad_x = static_cast<T*>(a.grad_x) + from;
  const T* const x = static_cast<const T*>(a.x) + segment.from * a.time_stride + tile.place;
  const bool record = a.output == Output::states;
  const Window<S> window(a);
  tile.each([&](int i) DEAL_FLAT {
    const auto model = tile.model(kind, i);
    typename Tile::States grads, entered;
    read_values(grads, tape.grads[0].at + i, kPitch<S>);
    for (int t = segment.steps - 1; t >= 0; --t) {
      read_values(entered, tape.entered[t][0] + i, kBackwardTile);
      const V current = read<V>(x + t * a.time_stride + i);
      const auto now = model.step(entered, current);
      V grad_s = {};
      if (record) grads.at[0] = grads.at[0] + read<V>(grad_states + t * a.group + i);
      else grad_s = read<V>(grad_spikes + t * a.group + i);
      const auto found = model.reverse(entered, current, now, window.template slope<V>(kind, now), grad_s, grads);
      put(grad_x + t * a.group + i, found.x, streaming);
      grads = found.entered;
      if constexpr (shares) {
        unrolled<Tile::kParameters>([&](auto k) DEAL_FLAT {
          S* const sum = tape.shares[k.value].at + i;
          if (a.grad_parameters[k.value]) store(sum, read<V>(sum) + found.parameters.at[k.value]);
        });
      }
    }
    store_values(tape.grads[0].at + i, kPitch<S>, grads);
  });
}

inline bool wants_shares(const MultistateBackward& a) {
  for (const void* share : a.grad_parameters)
    if (share) return true;
  return false;
}

template <class T, class Tile, class S>
void backward_tile(const MultistateBackward& a, Tile& tile, Tape<Tile, S>& tape, bool streaming) {
  const size_t row = sizeof(S) * tile.neurons;
  const int64_t last = segments(a) - 1;
  for (int64_t index = 0; index <= last; ++index) {
    for (int k = 0; k < Tile::kStates; ++k) __builtin_memcpy(tape.start(index, k), tile.states[k].at, row);
    const Segment segment(a, index);
    if (index < last) run_tile<T>(a, tile, segment, kBackwardTile, [](int, int, const auto&, const auto&) DEAL_FLAT {});
  }
  for (int k = 0; k < Tile::kStates; ++k) {
    const S* const grad = static_cast<const S*>(a.grad_states[k]);
    if (grad) __builtin_memcpy(tape.grads[k].at, grad + tile.first, row);
    else fill(tape.grads[k].at, tile.neurons, S(0));
  }
  const bool shares = wants_shares(a);
  for (int k = 0; shares && k < Tile::kParameters; ++k) fill(tape.shares[k].at, tile.neurons, S(0));

  for (int64_t index = last; index >= 0; --index) {
    const Segment segment(a, index);
    for (int k = 0; k < Tile::kStates; ++k) __builtin_memcpy(tile.states[k].at, tape.start(index, k), row);
    replay<T>(a, tile, tape, segment);
    if (shares) {
      reverse<true, T>(a, tile.neuron, tile, tape, segment, streaming);
    } else {
      split_surrogate<S>(tile.neuron, [&](const Neuron& kind) DEAL_FLAT {
        reverse<false, T>(a, kind, tile, tape, segment, streaming);
      });
    }
  }

  const auto save = [&](void* result, const Row<S>& values) {
    if (result) __builtin_memcpy(static_cast<S*>(result) + tile.first, values.at, row);
  };
  for (int k = 0; k < Tile::kStates; ++k) save(a.grad_starts[k], tape.grads[k]);
  for (int k = 0; k < Tile::kParameters; ++k) save(a.grad_parameters[k], tape.shares[k]);
}

template <class T, class Of>
void backward_blocks(const MultistateBackward& a, bool streaming, int64_t begin, int64_t end) {
  using S = compute_t<T>;
  Tile<Of, S> tile;
  Tape<Tile<Of, S>, S> tape;
  const Buffer<S> starts(kBackwardTile * tile.kStates * segments(a), Fill::none);
  tape.starts = starts.get();
  prepare(tile, a, end - begin);
  each_tile<S>(a, kBackwardTile, begin, end, [&](int64_t first, int64_t neurons) {
    place(tile, a, first, neurons);
    backward_tile<T>(a, tile, tape, streaming);
  });
  if (streaming) stream_fence();
}

template <class T, class Of>
void backward_tail(const MultistateBackward& a, int64_t first) {
  using S = compute_t<T>;
  InputTail<S> tail(a, first);
  MultistateBackward part = tail.template inputs<T>(a);
  if (a.output == Output::states) part.grad = tail.template steps_of<S>(a.grad);
  else part.grad = tail.template steps_of<T>(a.grad);
  part.grad_x = tail.template steps_of_result<T>(a.grad_x);
  for (auto& grad : part.grad_states) grad = tail.template of<S>(grad, 1, 0);
  for (auto& grad : part.grad_starts) grad = tail.template result<S>(grad, 1, 0);
  for (auto& grad : part.grad_parameters) grad = tail.template result<S>(grad, 1, 0);
  backward_blocks<T, Of>(part, false, 0, kQuad<S>);
}

template <class T>
void backward(const MultistateBackward& a, int threads) {
  // Double is compiled for the baseline alone, which serves every instruction set.
  if constexpr (sizeof(T) == 8 && DEAL_VECTOR_BYTES > 16) {
    baseline::multistate_backward(a, threads);
  } else {
    const bool streaming = streams(a.grad_x, a.group * int64_t(sizeof(T)), a.steps * (a.neurons / a.group));
    with_model(a.model, [&](auto of) {
      using Of = decltype(of);
      each_neuron<T>(a, a.group, threads,
                     [&](int64_t begin, int64_t end, int) { backward_blocks<T, Of>(a, streaming, begin, end); },
                     [&](int64_t first, int) { backward_tail<T, Of>(a, first); });
    });
  }
}

}  // namespace

void multistate_backward(const MultistateBackward& a, int threads) {
  with_type(a.dtype, [&](auto type) { backward<decltype(type)>(a, threads); });
}

}  // namespace DEAL_ISA
}  // namespace deal
