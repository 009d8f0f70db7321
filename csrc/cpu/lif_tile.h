// A tile: the neurons a thread works on at a time, with what the steps of math/neuron.h need of them.
#pragma once
#include "../lif.h"
#include "simd.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kTile = 512;        // neurons of a tile, at most
// Results larger than this leave the caches before anyone reads them, so they are streamed.
constexpr int64_t kStreamBytes = int64_t(8) << 20;

// Each calls next(kind) from a branch of its own, compiled for that value.
template <class Next>
DEAL_INLINE void split_charge(Neuron kind, const Next& next) {
  switch (kind.charge) {
    case Charge::decay_input: return kind.charge = Charge::decay_input, next(kind);
    case Charge::decay: return kind.charge = Charge::decay, next(kind);
    case Charge::leak: return kind.charge = Charge::leak, next(kind);
  }
}
template <class Next>
DEAL_INLINE void split_reset(Neuron kind, const Next& next) {
  switch (kind.reset) {
    case Reset::hard: return kind.reset = Reset::hard, next(kind);
    case Reset::soft: return kind.reset = Reset::soft, next(kind);
    case Reset::none: return kind.reset = Reset::none, next(kind);
  }
}
template <class Next>
DEAL_INLINE void split_surrogate(Neuron kind, const Next& next) {
  switch (kind.surrogate) {
    case Surrogate::sigmoid: return kind.surrogate = Surrogate::sigmoid, next(kind);
    case Surrogate::atan: return kind.surrogate = Surrogate::atan, next(kind);
    case Surrogate::triangle: return kind.surrogate = Surrogate::triangle, next(kind);
    case Surrogate::rectangle: return kind.surrogate = Surrogate::rectangle, next(kind);
  }
}

// One value per neuron of a tile. Lanes past the last neuron hold anything.
template <class S>
struct Row {
  alignas(64) S at[kTile];
  char skew[192];  // rows a power of two apart would compete for the same cache sets
};

// The tile being worked on.
template <class S>
struct Tile {
  Neuron neuron;
  int64_t first;
  int neurons;  // that exist
  int padded;   // to whole vectors
  Row<S> decay, threshold, v;

  // Calls body(cell, i) for every vector. The cell holds copies, so that stores cannot change it.
  template <class Body>
  DEAL_INLINE void each(const Neuron kind, const Body& body) const {
    const S* const decays = decay.at;
    const S* const thresholds = threshold.at;
    for (int i = 0, n = padded; i < n; i += Pack<S>::lanes)
      body(Cell<Pack<S>>{kind, load(decays + i), load(thresholds + i)}, i);
  }
};

template <class S>
DEAL_INLINE void fill(S* row, int count, S value) {
  const Pack<S> all = Pack<S>{} + value;
  int i = 0;
  for (; i + Pack<S>::lanes <= count; i += Pack<S>::lanes) store(row + i, all);
  for (; i < count; ++i) row[i] = value;
}

template <class S>
void fill_channels(Row<S>& row, const Parameter& p, int64_t first, int count) {
  const S* data = static_cast<const S*>(p.data);
  int64_t channel = first / p.inner % p.channels;
  int64_t left = p.inner - first % p.inner;
  for (int i = 0; i < count;) {
    const int run = left < count - i ? int(left) : count - i;
    fill(row.at + i, run, data[channel]);
    i += run;
    left = p.inner;
    if (++channel == p.channels) channel = 0;
  }
}

template <class S>
DEAL_INLINE S shared(const Parameter& p, double constant) {
  return p.data ? *static_cast<const S*>(p.data) : S(constant);
}

// Before a thread's first tile.
template <class S>
void prepare(Tile<S>& tile, const LifInput& a) {
  tile.neuron = a.neuron;
  fill(tile.decay.at, kTile, shared<S>(a.decay, a.neuron.decay));
  fill(tile.threshold.at, kTile, shared<S>(a.threshold, a.neuron.threshold));
}

// Moves on to the neurons from `first`, in their initial state.
template <class S>
void place(Tile<S>& tile, const LifInput& a, int64_t first, int64_t neurons) {
  constexpr int L = Pack<S>::lanes;
  tile.first = first;
  tile.neurons = int(neurons);
  tile.padded = (tile.neurons + L - 1) / L * L;
  if (a.decay.channels > 1) fill_channels(tile.decay, a.decay, first, tile.neurons);
  if (a.threshold.channels > 1) fill_channels(tile.threshold, a.threshold, first, tile.neurons);
  fill(tile.v.at, tile.padded, S(a.neuron.rest));
  if (a.v0) __builtin_memcpy(tile.v.at, static_cast<const S*>(a.v0) + first, sizeof(S) * tile.neurons);
}

// A row of a tensor, to be read or written in whole vectors: in place, or through a padded copy
// where the tensor ends inside a vector.
template <class T>
struct Edge {
  alignas(64) T copy[kTile];

  template <class S>
  DEAL_INLINE const T* read(const T* row, const Tile<S>& tile) {
    if (tile.neurons == tile.padded) return row;
    __builtin_memset(copy, 0, sizeof copy);
    __builtin_memcpy(copy, row, sizeof(T) * tile.neurons);
    return copy;
  }
  template <class S>
  DEAL_INLINE T* write(T* row, const Tile<S>& tile) {
    return tile.neurons == tile.padded ? row : copy;
  }
  template <class S>
  DEAL_INLINE void written(T* row, const Tile<S>& tile) {
    if (tile.neurons != tile.padded) __builtin_memcpy(row, copy, sizeof(T) * tile.neurons);
  }
};

template <class T, class S>
DEAL_INLINE void put(T* p, Pack<S> a, bool streaming) {
  if (streaming) stream(p, a);
  else store(p, a);
}

template <class S>
DEAL_INLINE void add(S* p, Pack<S> a) {
  store(p, load(p) + a);
}

// A result is streamed when it is too large to stay in a cache and its vectors are aligned.
bool streams(const void* result, int64_t row_bytes, int64_t rows) {
  return rows * row_bytes >= kStreamBytes && row_bytes % 64 == 0 && reinterpret_cast<uintptr_t>(result) % 64 == 0;
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
