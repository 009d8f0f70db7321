// Runs neurons through time, for the forward and the backward pass.
#pragma once
#include "input.h"
#include "tail.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// What happens to a group of neurons at one step.
template <class V>
struct Moment {
  V entered, h, s, left;  // the state before, the membrane potential before the reset, the spikes, the state after
};

// Runs a group of neurons through a segment and calls take(step, moment).
template <class V, class Lanes, class Take>
DEAL_INLINE void run(const Cell<V>& cell, V& v, const Lanes& x, int steps, const Take& take) {
  for (int t = 0; t < steps; ++t) {
    const V entered = v;
    const V h = cell.charge(v, x(t));
    const V s = cell.fire(h);
    v = cell.reset(entered, h, s);
    take(t, Moment<V>{entered, h, s, v});
  }
}

// Calls next(kind), compiled separately for the most common kinds of reset.
template <class S, class Next>
DEAL_INLINE void split_reset(const Neuron& neuron, const Next& next) {
  if constexpr (kCopies<S>)
    split<&Neuron::reset, Reset::hard, Reset::soft, Reset::none, Reset::next_soft>(neuron, next);
  else next(neuron);
}

// Runs the tile through a segment from the states `start`. Calls take(first neuron, step, moment) for every group.
template <class Source, class S, class Take>
DEAL_INLINE void run_tile(Tile<S>& tile, const S* start, const Source& source, int steps, const Take& take) {
  using V = Quad<S>;
  split_reset<S>(tile.neuron, [&](const Neuron& kind) DEAL_FLAT {
    tile.template each<V>([&](int i) DEAL_FLAT {
      V v = read<V>(start + i);
      run(tile.template cell<V>(kind, i), v, source.currents(i), steps,
          [&](int t, const Moment<V>& now) DEAL_FLAT { take(i, t, now); });
      store(tile.v.at + i, v);
    });
  });
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
