// A tile: the neurons a thread processes at a time, with their state and parameters.
#pragma once
#include "../../math/neuron.h"
#include "../common/channels.h"
#include "../common/pair.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kTile = 512;  // most neurons of a tile

// Four vectors of neurons are processed together: each step depends on the one before, and four independent chains hide
// the latency.
template <class S>
using Quad = Pair<Pair<Pack<S>>>;
template <class S>
constexpr int kQuad = Quad<S>::lanes;

// Calls next(kind), compiled separately for each of these values of a field, and once for all others.
template <auto field, auto... values, class Next>
DEAL_INLINE void split(const Neuron& kind, const Next& next) {
  const auto value = kind.*field;
  const auto fixed = [&](auto constant) DEAL_FLAT {
    Neuron known = kind;
    known.*field = constant;
    next(known);
  };
  if (!((value == values ? (fixed(values), true) : false) || ...)) next(kind);
}

// One value per neuron of a tile.
template <class S>
struct Row {
  alignas(64) S at[kTile];
  char skew[192];  // rows a power of two apart would map to the same cache sets
};

// A tile holds a whole number of Quads.
template <class S>
struct Tile {
  Neuron neuron;
  int64_t first;
  int neurons;
  Row<S> decay, threshold, v;

  // The neurons from i on.
  template <class V>
  DEAL_INLINE Cell<V> cell(const Neuron& kind, int i) const {
    return {kind, read<V>(decay.at + i), read<V>(threshold.at + i)};
  }

  // Calls body(i) for every V, where i is its first neuron.
  template <class V, class Body>
  DEAL_INLINE void each(const Body& body) const {
    for (int i = 0, n = neurons; i < n; i += V::lanes) body(i);
  }
};

template <class S>
DEAL_INLINE S shared(const Parameter& p, double constant) {
  return p.data ? *static_cast<const S*>(p.data) : S(constant);
}

// Sets what is the same for all tiles of a thread.
template <class S>
void prepare(Tile<S>& tile, const LifInput& a, int64_t neurons) {
  const int most = neurons < kTile ? int(neurons) : kTile;
  tile.neuron = a.neuron;
  fill(tile.decay.at, most, shared<S>(a.decay, a.neuron.decay));
  fill(tile.threshold.at, most, shared<S>(a.threshold, a.neuron.threshold));
}

// Moves on to the neurons from `first`, in their initial state.
template <class S>
void place(Tile<S>& tile, const LifInput& a, int64_t first, int64_t neurons) {
  tile.first = first;
  tile.neurons = int(neurons);
  if (a.decay.channels > 1) fill_channels(tile.decay.at, a.decay, first, tile.neurons);
  if (a.threshold.channels > 1) fill_channels(tile.threshold.at, a.threshold, first, tile.neurons);
  if (a.v0) __builtin_memcpy(tile.v.at, static_cast<const S*>(a.v0) + first, sizeof(S) * tile.neurons);
  else fill(tile.v.at, tile.neurons, S(a.neuron.rest));
}

template <class T, class V>
DEAL_INLINE void put(T* p, const V& x, bool streaming) {
  if (streaming) stream(p, x);
  else store(p, x);
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
