// The complementary neuron: it remembers its spikes for as long as the membrane is high, and every spike subtracts more
// the more it remembers.
#pragma once
#include "multistate.h"

namespace deal {

template <class V>
struct Clif {
  using S = scalar_t<V>;
  using States = Values<V, 2>;      // v, m
  using Parameters = Values<V, 2>;  // threshold, decay
  struct Moment : MomentOf<V, 2> {
    V kept, amount;  // the share of the memory that stays, and what a reset subtracts beside the threshold
  };
  using Gradients = GradientsOf<V, 2, 2>;

  Cell<V> cell;

  DEAL_INLINE Clif(const Neuron& kind, const Parameters& p) : cell{kind, p.at[1], p.at[0]} {}

  DEAL_INLINE States initial() const { return {V{}, V{}}; }

  DEAL_INLINE Moment step(const States& entered, const V& x) const {
    const V v = entered.at[0], m = entered.at[1];
    const V h = cell.charge(v, x);
    const V s = cell.fire(h), kept = logistic(cell.over_decay(h));
    const V left = m * kept + s;
    const V amount = logistic(left);
    return {{h, cell.threshold, s, {h - s * (cell.threshold + amount), left}}, kept, amount};
  }

  DEAL_INLINE Gradients reverse(const States& entered, const V& x, const Moment& now, const V& slope,
                                const V& grad_output, const States& grads) const {
    const V v = entered.at[0], m = entered.at[1], grad_v = grads.at[0];
    const V grad_m = grads.at[1] - (grad_v * now.s) * (now.amount * (S(1) - now.amount));
    const V grad_s = (grad_output + grad_m) - grad_v * (cell.threshold + now.amount);
    const V grad_kept = (grad_m * m) * (now.kept * (S(1) - now.kept));
    const V grad_u = grad_s * slope;
    const V grad_h = (grad_u + grad_v) + cell.over_decay(grad_kept);
    const V scaled = cell.kind.rate ? now.h : -cell.over_decay(cell.over_decay(now.h));
    return {grad_h,
            {grad_h * cell.state_share(), grad_m * now.kept},
            {-(grad_u + grad_v * now.s), grad_kept * scaled + cell.decay_gradient(x, v, grad_h)}};
  }
};

}  // namespace deal
