// The parallel spiking neuron: which weight belongs to which pair of steps.
#pragma once
#include "../types.h"
#include "place.h"

namespace deal {

// The weights of a sum over the steps s, from `begin` to before `end`.
template <class S>
struct PsnRow {
  const S* weight;
  int64_t first, stride, begin, end;

  DEAL_INLINE const S& operator()(int64_t s) const { return weight[first + s * stride]; }
};

// The weights of the inputs x[s] in h[t].
template <class S>
DEAL_INLINE PsnRow<S> inputs_of_step(const PsnInput& a, int64_t t) {
  const S* const weight = static_cast<const S*>(a.weight);
  const int64_t first = a.sliding ? a.band - 1 - t : t * a.steps;
  if (a.band == 0) return {weight, first, 1, 0, a.steps};
  return {weight, first, 1, t < a.band ? 0 : t - a.band + 1, t + 1};
}

// The weights of the gradients of h[s] in the gradient of x[t].
template <class S>
DEAL_INLINE PsnRow<S> outputs_of_step(const PsnInput& a, int64_t t) {
  const S* const weight = static_cast<const S*>(a.weight);
  const int64_t first = a.sliding ? a.band - 1 + t : t, stride = a.sliding ? -1 : a.steps;
  if (a.band == 0) return {weight, first, stride, a.skipped, a.steps};
  const int64_t end = t + a.band;
  return {weight, first, stride, t < a.skipped ? a.skipped : t, end < a.steps ? end : a.steps};
}

template <class S>
DEAL_INLINE S bias_of_step(const PsnInput& a, int64_t t) {
  return static_cast<const S*>(a.bias)[a.sliding ? 0 : t];
}

}  // namespace deal
