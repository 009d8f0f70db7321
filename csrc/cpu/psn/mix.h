// A tile: some neurons at all steps, in memory that the first-level cache holds, and the weighted sums over its steps.
#pragma once
#include "../../math/psn.h"
#include "../common/buffer.h"
#include "../common/pair.h"
#include "../common/parallel.h"
#include "../common/rows.h"
#include "../common/unrolled.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kValues = 4096;              // of a tile, unless it has its fewest neurons
constexpr int kFewest = 64, kMost = 512;   // neurons of a tile
constexpr int64_t kElementsWorthAThread = 32768;

struct Tile {
  int64_t first;
  int64_t place;  // where the first step of that neuron is
  int neurons;
  int width;  // neurons in memory, a whole number of the widest vectors: those past the last are zero
};

// Neurons of all tiles but the last.
inline int tile_width(const PsnInput& a) {
  const int64_t width = kValues / a.steps / kFewest * kFewest;
  return width < kFewest ? kFewest : width > kMost ? kMost : int(width);
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Calls body(tile) for the neurons from begin to end. Tiles end where a group does, and at every multiple of their width.
template <class Body>
DEAL_INLINE void each_tile(const PsnInput& a, int64_t begin, int64_t end, const Body& body) {
  const int most = tile_width(a);
  for (int64_t n = begin, next; n < end; n = next) {
    next = least(n + most - (n - begin) % most, least(n + a.group - n % a.group, end));
    const int neurons = int(next - n);
    body(Tile{n, place_of(a, n), neurons, (neurons + kFewest - 1) / kFewest * kFewest});
  }
}

// Reads steps of the tile's neurons that are `stride` elements apart.
template <class T, class S>
void read_steps(const T* from, int64_t stride, int64_t steps, const Tile& tile, S* to) {
  constexpr int lanes = Pack<S>::lanes;
  from += tile.place;
  for (int64_t t = 0; t < steps; ++t, from += stride, to += tile.width) {
    read_row(from, to, tile.neurons);
    clear(to, (tile.neurons + lanes - 1) / lanes * lanes, tile.width);
  }
}

// Prefetches a step of the next tile into the second-level cache. Called between the sums, it lets memory and
// computation work at the same time.
template <class V, class T>
DEAL_INLINE void prefetch_next(const T* step, const Tile& tile, int i) {
  constexpr int line = 64 / int(sizeof(T)), second_level = 2;
  const T* const next = step + tile.place + tile.width + i;
  constexpr int lines = (V::lanes + line - 1) / line;
  unrolled<lines>([&](int k) DEAL_FLAT { __builtin_prefetch(next + k * line, 0, second_level); });
}

// Writes values of the neurons of a tile from the i-th on.
template <class T, class V>
DEAL_INLINE void write_values(T* to, const V& values, const Tile& tile, int i, bool streaming) {
  to += i;
  if (i + V::lanes <= tile.neurons) {
    if (streaming) stream(to, values);
    else store(to, values);
  } else if (i < tile.neurons) {
    T some[V::lanes];
    store(some, values);
    // Not memcpy: around a call no sum would stay in a register.
    for (int k = 0; k < tile.neurons - i; ++k) to[k] = some[k];
  }
}

// Calls take(step, i, sums) with the sums of the neurons from the i-th on, at R steps from t on. The first of them has
// the weights `row` and the others those `across` further on, of the same inputs. The order of the additions is part of
// the definition, because it decides the bits.
template <int R, class V, class S, class Take>
DEAL_INLINE void mix_steps(const PsnRow<S>& row, int64_t across, int64_t t, const S* in, const Tile& tile,
                           const Take& take) {
  for (int i = 0; i < tile.width; i += V::lanes) {
    V sums[R] = {};
    const S* weight = &row(row.begin);
    const S* x = in + row.begin * tile.width + i;
    for (int64_t s = row.begin; s < row.end; ++s, weight += row.stride, x += tile.width) {
      const V input = read<V>(x);
      unrolled<R>([&](int r) DEAL_FLAT { sums[r] = fused(weight[r * across], input, sums[r]); });
    }
    unrolled<R>([&](int r) DEAL_FLAT { take(t + r, i, sums[r]); });
  }
}

// Calls take(step, i, sums) for all steps from the first on and all neurons of a tile. Steps with the same inputs are
// summed together, which loads each input once for four of them.
template <class S, class RowOf, class Take>
DEAL_INLINE void mix(const PsnInput& a, const RowOf& row_of, int64_t first, const S* in, const Tile& tile,
                     const Take& take) {
  int64_t t = first;
  for (; a.band == 0 && t + 4 <= a.steps; t += 4) {
    const PsnRow<S> row = row_of(t);
    mix_steps<4, Pair<Pack<S>>>(row, row_of(t + 1).first - row.first, t, in, tile, take);
  }
  for (; t < a.steps; ++t) mix_steps<1, Pair<Pair<Pack<S>>>>(row_of(t), 0, t, in, tile, take);
}

// Calls take(step, i, sums) for all steps with an output, where h is the sum plus the bias of the step.
template <class S, class Take>
DEAL_INLINE void mix_inputs(const PsnInput& a, const S* x, const Tile& tile, const Take& take) {
  mix(a, [&](int64_t t) DEAL_FLAT { return inputs_of_step<S>(a, t); }, a.skipped, x, tile, take);
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
