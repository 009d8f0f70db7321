// What models with several states have in common. A model has a constructor of a neuron and the values of its
// parameters, and
//
//   initial()                                       the states of neurons that are given none
//   step(entered, x)                                a Moment: what happens at a step
//   reverse(entered, x, now, slope, grad_s, grads)  the gradients of the step, from those of its spikes and of the
//                                                   states after it
//
// deal_kernels/multistate/reference.py is the same in Python.
#pragma once
#include "neuron.h"

namespace deal {

// A counter that is a constant.
template <int i>
struct Index {
  static constexpr int value = i;
};

// Calls body(Index<0>()), ..., body(Index<n - 1>()).
template <int n, int i = 0, class Body>
DEAL_INLINE void unrolled(const Body& body) {
  if constexpr (i < n) {
    body(Index<i>());
    unrolled<n, i + 1>(body);
  }
}

template <class V, int n>
struct Values {
  static constexpr int count = n;
  V at[n];
};

// What happens at a step: the membrane potential before the reset, the threshold, the spikes, the states after it.
template <class V, int states>
struct MomentOf {
  V h, threshold, s;
  Values<V, states> left;
};

// Of the input, of the states that enter the step, and of the parameters.
template <class V, int n, int m>
struct GradientsOf {
  V x;
  Values<V, n> entered;
  Values<V, m> parameters;
};

// Outside of it the surrogate derivative is 0.
template <class S>
struct Window {
  bool windowed;
  S low, high;

  DEAL_INLINE explicit Window(const MultistateInput& a) : windowed(a.windowed), low(S(a.low)), high(S(a.high)) {}

  // ds/dh.
  template <class V, class Moment>
  DEAL_INLINE V slope(const Neuron& kind, const Moment& now) const {
    const V slope = Cell<V>{kind, V{}, now.threshold}.spike_slope(now.h);
    return windowed ? select(now.h > low, select(now.h < high, slope, V{}), V{}) : slope;
  }
};

}  // namespace deal
