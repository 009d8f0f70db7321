// The neuron with an adaptive threshold: the charge of lif; every spike raises the threshold, which falls again.
#pragma once
#include "multistate.h"

namespace deal {

template <class V>
struct Alif {
  using S = scalar_t<V>;
  using States = Values<V, 2>;      // v, a
  using Parameters = Values<V, 4>;  // threshold, decay, decay of the adaptation, its strength
  using Moment = MomentOf<V, 2>;
  using Gradients = GradientsOf<V, 2, 4>;

  Cell<V> resting;  // with the threshold without adaptation
  V adaptation, strength;

  DEAL_INLINE Alif(const Neuron& kind, const Parameters& p)
      : resting{kind, p.at[1], p.at[0]}, adaptation(p.at[2]), strength(p.at[3]) {}

  DEAL_INLINE States initial() const { return {V{} + S(resting.kind.rest), V{}}; }

  DEAL_INLINE Moment step(const States& entered, const V& x) const {
    const V v = entered.at[0], a = entered.at[1];
    const Cell<V> cell = {resting.kind, resting.decay, resting.threshold + strength * a};
    const V h = cell.charge(v, x);
    const V s = cell.fire(h);
    return {h, cell.threshold, s, {cell.reset(v, h, s), adaptation * a + s}};
  }

  DEAL_INLINE Gradients reverse(const States& entered, const V& x, const Moment& now, const V& slope,
                                const V& grad_output, const States& grads) const {
    const V v = entered.at[0], a = entered.at[1], grad_v = grads.at[0], grad_a = grads.at[1];
    const Cell<V> cell = {resting.kind, resting.decay, now.threshold};
    const V grad_s = grad_output + grad_a;
    const V grad_h = cell.charge_gradient(now.h, now.s, slope, grad_s, grad_v);
    const V grad_threshold = cell.threshold_gradient(v, now.h, now.s, slope, grad_s, grad_v, grad_h);
    return {grad_h * cell.input_share(),
            {cell.state_gradient(v, grad_h, cell.state_share()), grad_a * adaptation + grad_threshold * strength},
            {grad_threshold, cell.decay_gradient(x, v, grad_h), grad_a * a, grad_threshold * a}};
  }
};

}  // namespace deal
