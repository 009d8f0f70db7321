// Neurons are processed in tiles that fit into the first-level cache, a tile in segments of steps, and a segment in
// groups of four vectors (Quad), whose state stays in registers for all steps of the segment. The kind of neuron is the
// same for all vectors; the most expensive branches on it are taken outside of the loops.
#include "../../types.h"

#include "../common/dtype.h"
#include "../common/kernels.h"
#include "run.h"

namespace deal {
namespace DEAL_ISA {
namespace {

template <class T, class Source, class S>
void write_spikes(const LifForward& a, Tile<S>& tile, const Source& source, Segment segment, bool streaming) {
  T* const out = static_cast<T*>(a.out) + segment.from * a.group + tile.place;
  const S scale = S(a.neuron.scale);
  run_tile(tile, tile.v.at, source, segment.steps, [&](int i, int t, const auto& now) DEAL_FLAT {
    put(out + t * a.group + i, now.s * scale, streaming);
  });
}

// Writes the states after every step, or the membrane potentials before the reset.
template <class Source, class S>
void write_record(const LifForward& a, Tile<S>& tile, const Source& source, Segment segment, bool streaming) {
  S* const out = static_cast<S*>(a.out) + segment.from * a.group + tile.place;
  const bool states = a.output == Output::states;
  run_tile(tile, tile.v.at, source, segment.steps, [&](int i, int t, const auto& now) DEAL_FLAT {
    put(out + t * a.group + i, states ? now.left : now.h, streaming);
  });
}

// Calls next(kind), compiled separately for each kind of reset and for the most common neuron.
template <class S, class Next>
DEAL_INLINE void split_usual(const Neuron& neuron, const Next& next) {
  const bool usual =
      neuron.charge == Charge::decay_input && neuron.fire == Fire::ge && neuron.rate && neuron.rest == 0;
  split_reset<S>(neuron, [&](Neuron kind) DEAL_FLAT {
    if constexpr (kCopies<S>) {
      if (usual) {
        kind.charge = Charge::decay_input;
        kind.fire = Fire::ge;
        kind.rate = true;
        kind.rest = 0;
        return next(kind);
      }
    }
    next(kind);
  });
}

template <class T, class Source, class S>
void write_mean(const LifForward& a, Tile<S>& tile, Row<S>& counts, const Source& source, Segment segment,
                bool streaming) {
  using V = Quad<S>;
  T* const out = static_cast<T*>(a.out) + tile.first;
  const bool last = segment.from + segment.steps == a.steps;
  split_usual<S>(tile.neuron, [&](const Neuron& kind) DEAL_FLAT {
    tile.template each<V>([&](int i) DEAL_FLAT {
      V v = read<V>(tile.v.at + i);
      V count = segment.from > 0 ? read<V>(counts.at + i) : V{};
      run(tile.template cell<V>(kind, i), v, source.currents(i), segment.steps,
          [&](int, const Moment<V>& now) DEAL_FLAT { count = count + now.s; });
      store(tile.v.at + i, v);
      if (last) put(out + i, count / S(a.steps) * S(a.neuron.scale), streaming);
      else store(counts.at + i, count);
    });
  });
}

template <class Source, class S>
void write_bits(const LifForward& a, Tile<S>& tile, const Source& source, Segment segment) {
  const int64_t pitch = (a.neurons + 7) / 8;
  uint8_t* const out = static_cast<uint8_t*>(a.out) + segment.from * pitch + tile.first / 8;
  run_tile(tile, tile.v.at, source, segment.steps, [&](int i, int t, const auto& now) DEAL_FLAT {
    const uint64_t bits = lane_bits(now.s);
    __builtin_memcpy(out + t * pitch + i / 8, &bits, kQuad<S> / 8);
  });
}

// The neurons from begin to end, a whole number of Quads, counted without tails.
template <class T, template <class> class Source>
void forward_blocks(const LifForward& a, bool streaming, int64_t begin, int64_t end) {
  using S = compute_t<T>;
  Source<T> source(a, nullptr);
  Tile<S> tile;
  Row<S> counts;
  prepare(tile, a, end - begin);
  each_tile<S>(a, kTile, begin, end, [&](int64_t first, int64_t neurons) {
    place(tile, a, first, neurons);
    source.place(tile);
    for (int64_t i = 0; i < segments(a); ++i) {
      const Segment segment(a, i);
      source.aim(a, tile, segment);
      switch (a.output) {
        case Output::spikes: write_spikes<T>(a, tile, source, segment, streaming); break;
        case Output::mean: write_mean<T>(a, tile, counts, source, segment, streaming); break;
        case Output::packed: write_bits(a, tile, source, segment); break;
        default: write_record(a, tile, source, segment, streaming);
      }
    }
    if (a.v) __builtin_memcpy(static_cast<S*>(a.v) + first, tile.v.at, sizeof(S) * tile.neurons);
  });
  if (streaming) stream_fence();
}

template <class T, template <class> class Source>
void forward_tail(const LifForward& a, int64_t first) {
  using S = compute_t<T>;
  LifTail<S> tail(a, first);
  LifForward part = tail.template inputs<T>(a);
  part.v = tail.template result<S>(a.v, 1, 0);
  if (a.output == Output::packed) part.out = tail.bits(a.out, a.steps, (a.neurons + 7) / 8);
  else if (a.output == Output::mean) part.out = tail.template result<T>(a.out, 1, 0);
  else if (is_record(a)) part.out = tail.template steps_of_result<S>(a.out);
  else part.out = tail.template steps_of_result<T>(a.out);
  forward_blocks<T, Source>(part, false, 0, kQuad<S>);
  if (a.output == Output::packed) tail.clear_padding(static_cast<uint8_t*>(part.out), a.steps);
}

template <class T, template <class> class Source>
void forward(const LifForward& a, int threads) {
  const size_t element = is_record(a) ? sizeof(compute_t<T>) : sizeof(T);
  const int64_t rows = (a.output == Output::mean ? 1 : a.steps) * (a.neurons / a.group);
  const bool streaming = a.output != Output::packed && streams(a.out, a.group * int64_t(element), rows);
  each_neuron<T>(
      a, a.group, threads,
      [&](int64_t begin, int64_t end, int) { forward_blocks<T, Source>(a, streaming, begin, end); },
      [&](int64_t first, int) { forward_tail<T, Source>(a, first); });
}

// Double is compiled for the baseline alone, which serves every instruction set.
template <class T>
void forward(const LifForward& a, int threads) {
  if constexpr (sizeof(T) == 8 && DEAL_VECTOR_BYTES > 16) baseline::lif_forward(a, threads);
  else a.norm.mean.data ? forward<T, Normalised>(a, threads) : forward<T, Direct>(a, threads);
}

}  // namespace

void lif_forward(const LifForward& a, int threads) {
  with_type(a.dtype, [&](auto type) { forward<decltype(type)>(a, threads); });
}

}  // namespace DEAL_ISA
}  // namespace deal
