// A tile: the neurons a thread processes at a time, with their state and parameters.
#pragma once
#include "../../math/neuron.h"
#include "../common/tile.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// A tile holds a whole number of Quads.
template <class S>
struct Tile {
  Neuron neuron;
  int64_t first;  // its first neuron
  int64_t place;  // where the first step of that neuron is, in tensors that have all steps
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
  tile.place = place_of(a, first);
  tile.neurons = int(neurons);
  if (a.decay.channels > 1) fill_channels(tile.decay.at, a.decay, first, tile.neurons);
  if (a.threshold.channels > 1) fill_channels(tile.threshold.at, a.threshold, first, tile.neurons);
  if (a.v0) __builtin_memcpy(tile.v.at, static_cast<const S*>(a.v0) + first, sizeof(S) * tile.neurons);
  else fill(tile.v.at, tile.neurons, S(a.neuron.rest));
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
