// A tile of neurons with several states, and how it runs through time. The model is a template of math/.
#pragma once
#include "../../math/models.h"
#include "../common/logistic.h"
#include "../common/tail.h"
#include "../common/tile.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// Neurons that are processed together: fewer than in lif, because each has more values in registers.
template <class S>
using Group = Pair<Pack<S>>;

// A tile holds a whole number of Groups.
template <class Of, class S>
struct Tile {
  using V = Group<S>;
  using Model = typename Of::template model<V>;
  using States = typename Model::States;
  static constexpr int kStates = States::count, kParameters = Model::Parameters::count;

  Neuron neuron;
  int64_t first;  // its first neuron
  int64_t place;  // where the first step of that neuron is, in tensors that have all steps
  int neurons;
  Row<S> states[kStates], parameters[kParameters];

  // The neurons from i on.
  DEAL_INLINE Model model(const Neuron& kind, int i) const {
    typename Model::Parameters values;
    unrolled<kParameters>([&](auto k) DEAL_FLAT { values.at[k.value] = read<V>(parameters[k.value].at + i); });
    return Model(kind, values);
  }

  // Calls body(i) for every group, where i is its first neuron.
  template <class Body>
  DEAL_INLINE void each(const Body& body) const {
    for (int i = 0, n = neurons; i < n; i += V::lanes) body(i);
  }
};

template <class V, int n, class S>
DEAL_INLINE void read_values(Values<V, n>& values, const S* p, int64_t stride) {
  unrolled<n>([&](auto k) DEAL_FLAT { values.at[k.value] = read<V>(p + k.value * stride); });
}

template <class V, int n, class S>
DEAL_INLINE void store_values(S* p, int64_t stride, const Values<V, n>& values) {
  unrolled<n>([&](auto k) DEAL_FLAT { store(p + k.value * stride, values.at[k.value]); });
}

template <class S>
constexpr int64_t kPitch = sizeof(Row<S>) / sizeof(S);  // from a row to the next

// Sets what is the same for all tiles of a thread.
template <class Tile>
void prepare(Tile& tile, const MultistateInput& a, int64_t neurons) {
  const int most = neurons < kTile ? int(neurons) : kTile;
  tile.neuron = a.neuron;
  for (int k = 0; k < Tile::kParameters; ++k)
    fill(tile.parameters[k].at, most, shared<scalar_t<typename Tile::V>>(a.parameters[k], a.numbers[k]));
}

// Moves on to the neurons from `first`, in their initial states.
template <class Tile>
void place(Tile& tile, const MultistateInput& a, int64_t first, int64_t neurons) {
  using S = scalar_t<typename Tile::V>;
  tile.first = first;
  tile.place = place_of(a, first);
  tile.neurons = int(neurons);
  for (int k = 0; k < Tile::kParameters; ++k)
    if (a.parameters[k].channels > 1) fill_channels(tile.parameters[k].at, a.parameters[k], first, tile.neurons);
  tile.each([&](int i) { store_values(tile.states[0].at + i, kPitch<S>, tile.model(a.neuron, i).initial()); });
  for (int k = 0; k < Tile::kStates; ++k)
    if (a.starts[k])
      __builtin_memcpy(tile.states[k].at, static_cast<const S*>(a.starts[k]) + first, sizeof(S) * tile.neurons);
}

// The last neurons of a group.
template <class S>
struct InputTail : GroupTail<S> {
  using GroupTail<S>::GroupTail;

  // The call restricted to these neurons. Its results still point to the original ones.
  template <class T, class Call>
  Call inputs(const Call& a) {
    Call part = a;
    part.neurons = part.group = kQuad<S>;
    part.time_stride = a.time_stride ? kQuad<S> : 0;
    part.x = this->template input_of<T>(a);
    for (auto& start : part.starts) start = this->template of<S>(start, 1, 0);
    for (auto& parameter : part.parameters) parameter = this->parameter(parameter);
    return part;
  }
};

// The input currents of the neurons from i on, at the steps of a segment.
template <class T, class Tile>
DEAL_INLINE Currents<T, typename Tile::V> currents(const MultistateInput& a, const Tile& tile, const Segment& segment,
                                                   int i, int tile_neurons) {
  const T* const x = static_cast<const T*>(a.x) + segment.from * a.time_stride + tile.place + i;
  const bool more = segment.from + segment.steps < a.steps;
  return {x, a.time_stride, more ? kSegment * a.time_stride : tile_neurons - segment.from * a.time_stride};
}

// Calls next(kind), compiled separately for the most common kinds of neuron.
template <class S, class Next>
DEAL_INLINE void split_usual(const Neuron& neuron, const Next& next) {
  if constexpr (kCopies<S>) split<&Neuron::reset, Reset::hard, Reset::soft>(neuron, next);
  else next(neuron);
}

// Runs the tile through a segment. Calls take(first neuron, step, states before it, moment) for every group.
template <class T, class Tile, class Take>
DEAL_INLINE void run_tile(const MultistateInput& a, Tile& tile, const Segment& segment, int tile_neurons,
                          const Take& take) {
  using S = compute_t<T>;
  split_usual<S>(tile.neuron, [&](const Neuron& kind) DEAL_FLAT {
    tile.each([&](int i) DEAL_FLAT {
      const auto model = tile.model(kind, i);
      const auto x = currents<T>(a, tile, segment, i, tile_neurons);
      typename Tile::States states;
      read_values(states, tile.states[0].at + i, kPitch<S>);
      for (int t = 0; t < segment.steps; ++t) {
        const auto now = model.step(states, x(t));
        take(i, t, states, now);
        states = now.left;
      }
      store_values(tile.states[0].at + i, kPitch<S>, states);
    });
  });
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
