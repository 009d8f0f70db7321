// The current-based neuron: a current that decays, and a membrane that it charges. With rates, both move by a share of
// a difference.
#pragma once
#include "multistate.h"

namespace deal {

template <class V>
struct Cuba {
  using S = scalar_t<V>;
  using States = Values<V, 2>;      // v, i
  using Parameters = Values<V, 3>;  // threshold, decay of the membrane, decay of the current
  using Moment = MomentOf<V, 2>;
  using Gradients = GradientsOf<V, 2, 3>;

  Cell<V> cell;
  V current;

  DEAL_INLINE Cuba(const Neuron& kind, const Parameters& p) : cell{kind, p.at[1], p.at[0]}, current(p.at[2]) {}

  DEAL_INLINE States initial() const { return {V{} + S(cell.kind.rest), V{}}; }

  DEAL_INLINE Moment step(const States& entered, const V& x) const {
    const V v = entered.at[0], i = entered.at[1];
    V h, left;
    if (cell.kind.rate) {
      const V c = i + x;
      h = v + cell.decay * ((S(cell.kind.rest) - v) + c);
      left = c - current * c;
    } else {
      left = current * i + x;
      h = cell.decay * v + left;
    }
    if (cell.kind.reset == Reset::next_hard) h = select(cell.fires(v), V{} + S(cell.kind.reset_to), h);
    if (cell.subtracts_first()) h = h - cell.fire(v) * cell.amount();
    const V s = cell.fire(h);
    return {h, cell.threshold, s, {cell.reset(v, h, s), left}};
  }

  DEAL_INLINE Gradients reverse(const States& entered, const V& x, const Moment& now, const V& slope, const V& grad_s,
                                const States& grads) const {
    const V v = entered.at[0], i = entered.at[1], grad_v = grads.at[0], grad_i = grads.at[1];
    const V grad_fired = cell.charge_gradient(now.h, now.s, slope, grad_s, grad_v);
    const V grad_threshold = cell.threshold_gradient(v, now.h, now.s, slope, grad_s, grad_v, grad_fired);
    const V grad_h = cell.state_gradient(v, grad_fired, V{} + S(1));  // a reset of this step lets nothing pass
    if (cell.kind.rate) {
      const V c = i + x, pulled = grad_h * cell.decay;
      const V grad_c = pulled + (grad_i - grad_i * current);
      return {grad_c,
              {grad_h - pulled, grad_c},
              {grad_threshold, grad_h * ((S(cell.kind.rest) - v) + c), -(grad_i * c)}};
    }
    const V grad_c = grad_h + grad_i;
    return {grad_c, {grad_h * cell.decay, grad_c * current}, {grad_threshold, grad_h * v, grad_c * i}};
  }
};

}  // namespace deal
