// The current-based neuron with an adaptive threshold: membrane, current and threshold each move by a share of a
// difference, and the membrane takes the current of the step before.
#pragma once
#include "multistate.h"

namespace deal {

template <class V>
struct Lsnn {
  using S = scalar_t<V>;
  using States = Values<V, 3>;      // v, i, b
  using Parameters = Values<V, 5>;  // threshold, rates of the membrane, the current and the adaptation, its strength
  using Moment = MomentOf<V, 3>;
  using Gradients = GradientsOf<V, 3, 5>;

  Cell<V> resting;  // with the threshold without adaptation
  V current, adaptation, strength;

  DEAL_INLINE Lsnn(const Neuron& kind, const Parameters& p)
      : resting{kind, p.at[1], p.at[0]}, current(p.at[2]), adaptation(p.at[3]), strength(p.at[4]) {}

  DEAL_INLINE States initial() const { return {V{} + S(resting.kind.rest), V{}, resting.threshold}; }

  DEAL_INLINE Moment step(const States& entered, const V& x) const {
    const V v = entered.at[0], i = entered.at[1], b = entered.at[2];
    const V h = v + resting.decay * ((S(resting.kind.rest) - v) + i);
    const Cell<V> cell = {resting.kind, resting.decay, b + adaptation * (resting.threshold - b)};
    const V s = cell.fire(h);
    return {h, cell.threshold, s, {cell.reset(v, h, s), (i - current * i) + x, cell.threshold + s * strength}};
  }

  DEAL_INLINE Gradients reverse(const States& entered, const V&, const Moment& now, const V& slope,
                                const V& grad_output, const States& grads) const {
    const V v = entered.at[0], i = entered.at[1], b = entered.at[2];
    const V grad_v = grads.at[0], grad_i = grads.at[1], grad_b = grads.at[2];
    const Cell<V> cell = {resting.kind, resting.decay, now.threshold};
    const V grad_s = grad_output + grad_b * strength;
    const V grad_h = cell.charge_gradient(now.h, now.s, slope, grad_s, grad_v);
    const V grad_b1 = cell.threshold_gradient(v, now.h, now.s, slope, grad_s, grad_v, grad_h) + grad_b;
    const V pulled = grad_h * cell.decay, adapted = grad_b1 * adaptation;
    return {grad_i,
            {grad_h - pulled, pulled + (grad_i - grad_i * current), grad_b1 - adapted},
            {adapted, grad_h * ((S(resting.kind.rest) - v) + i), -(grad_i * i), grad_b1 * (resting.threshold - b),
             grad_b * now.s}};
  }
};

}  // namespace deal
