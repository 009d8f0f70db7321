// A tile: some neurons at all steps, in memory that the first-level cache holds, and the weighted sums over its steps.
#pragma once
#include "../../math/psn.h"
#include "../common/buffer.h"
#include "../common/pair.h"
#include "../common/parallel.h"
#include "../common/rows.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kValues = 4096;              // of a tile, unless it has its fewest neurons
constexpr int kFewest = 64, kMost = 512;   // neurons of a tile
constexpr int64_t kElementsWorthAThread = 32768;

struct Tile {
  int64_t first;
  int neurons;
  int width;  // neurons in memory: those past the last are zero
};

// A whole number of the widest vectors.
inline int tile_width(const PsnInput& a) {
  const int64_t width = kValues / a.steps / kFewest * kFewest;
  return width < kFewest ? kFewest : width > kMost ? kMost : int(width);
}

// Calls body(tile) for the neurons from begin to end.
template <class Body>
DEAL_INLINE void each_tile(const PsnInput& a, int64_t begin, int64_t end, const Body& body) {
  const int width = tile_width(a);
  for (int64_t n = begin; n < end; n += width) body(Tile{n, int(end - n < width ? end - n : width), width});
}

// Reads steps that are `stride` elements apart, and prefetches those of the next tile.
template <class T, class S>
void read_steps(const T* from, int64_t stride, int64_t steps, const Tile& tile, S* to) {
  constexpr int line = 64 / int(sizeof(T)), lanes = Pack<S>::lanes;
  from += tile.first;
  for (int64_t t = 0; t < steps; ++t, from += stride, to += tile.width) {
    for (int i = 0; i < tile.width; i += line) __builtin_prefetch(from + tile.width + i);
    read_row(from, to, tile.neurons);
    clear(to, (tile.neurons + lanes - 1) / lanes * lanes, tile.width);
  }
}

// Writes as many of the values as there are neurons left.
template <class T, class V>
DEAL_INLINE void write_some(T* p, const V& values, int left, bool streaming) {
  if (left >= V::lanes) {
    if (streaming) stream(p, values);
    else store(p, values);
    return;
  }
  T some[V::lanes];
  store(some, values);
  __builtin_memcpy(p, some, sizeof(T) * size_t(left));
}

// Calls take(step, first neuron, sum) with the sums of R steps, whose weights are of the same inputs. The order of the
// additions is part of the definition, because it decides the bits.
template <int R, class V, class S, class RowOf, class Take>
DEAL_INLINE void mix_steps(const PsnInput& a, const RowOf& row_of, int64_t first, const S* in, const Tile& tile,
                           const Take& take) {
  PsnRow<S> rows[R];
  for (int r = 0; r < R; ++r) rows[r] = row_of(a, first + r);
  for (int i = 0; i < tile.neurons; i += V::lanes) {
    V sums[R] = {};
    for (int64_t s = rows[0].begin; s < rows[0].end; ++s) {
      const V x = read<V>(in + s * tile.width + i);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sums[r] = fused(rows[r](s), x, sums[r]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) take(first + r, i, sums[r]);
  }
}

// Calls take(step, first neuron, sum) for all steps from the first on. Steps with the same inputs are summed together,
// which loads each input once for four of them.
template <class S, class RowOf, class Take>
DEAL_INLINE void mix(const PsnInput& a, const RowOf& row_of, int64_t first, const S* in, const Tile& tile,
                     const Take& take) {
  int64_t t = first;
  if (a.band == 0)
    for (; t + 4 <= a.steps; t += 4) mix_steps<4, Pair<Pack<S>>>(a, row_of, t, in, tile, take);
  for (; t < a.steps; ++t) mix_steps<1, Pair<Pair<Pack<S>>>>(a, row_of, t, in, tile, take);
}

// h of all steps with an output.
template <class S, class Take>
DEAL_INLINE void each_membrane(const PsnInput& a, const S* x, const Tile& tile, const Take& take) {
  mix(a, [](const PsnInput& of, int64_t t) DEAL_FLAT { return inputs_of_step<S>(of, t); }, a.skipped, x, tile,
      [&](int64_t t, int i, const auto& sum) DEAL_FLAT { take(t, i, sum + bias_of_step<S>(a, t)); });
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
