// The spiking neuron: charge, fire, reset, and their derivatives. deal_kernels/_common/cell.py is the same in Python.
// The order of operations and the true division are part of the definition, because they decide the bits.
#pragma once
#include "place.h"
#include "surrogate.h"

namespace deal {

// One time step of a group of neurons. V holds one value per neuron.
template <class V>
struct Cell {
  using S = scalar_t<V>;
  Neuron kind;
  V decay, threshold;

  DEAL_INLINE V over_decay(V a) const { return kind.rate ? a * decay : a / decay; }

  // v is the state that enters the step.
  DEAL_INLINE V charge(V v, V x) const {
    if (kind.reset == Reset::next_hard) v = cleared(v, fire(v));
    const V h = charged(v, x);
    return subtracts_first() ? h - fire(v) * amount() : h;
  }

  // Whether the neuron fires, where a spike has a single level.
  DEAL_INLINE auto fires(V h) const { return kind.fire == Fire::gt ? h > threshold : h >= threshold; }

  DEAL_INLINE V fire(V h) const {
    if (kind.fire == Fire::levels) return round_half_even(clamp(h / threshold));
    return select(fires(h), S(1), S(0));
  }

  // The state after the step.
  DEAL_INLINE V reset(V v, V h, V s) const {
    switch (kind.reset) {
      case Reset::hard: return cleared(h, s);
      case Reset::soft: return h - s * amount();
      case Reset::twice_soft: return h - (s - fire(v)) * amount();
      default: return h;
    }
  }

  // ds/dh: the surrogate derivative. With several levels it is the derivative by the ratio that is rounded.
  DEAL_INLINE V spike_slope(V h) const {
    if (kind.fire == Fire::levels) return slope_at(h / threshold) / threshold;
    return slope_at(h - threshold);
  }

  // The gradient of h, given the gradients of the spike and of the state after the step.
  DEAL_INLINE V charge_gradient(V h, V s, V slope, V grad_s, V grad_v) const {
    if (!resets_now()) return grad_s * slope + grad_v;
    V through = kept(h, s);
    if (!kind.detach_reset) through = through + reset_slope(h) * slope;
    return grad_s * slope + grad_v * through;
  }

  // dh/dx: the gradient of the input is this factor times the gradient of h.
  DEAL_INLINE V input_share() const {
    const V all = V{} + S(1);
    return kind.charge == Charge::decay_input ? over_decay(all) : all;
  }

  // dh/dv of the charge.
  DEAL_INLINE V state_share() const {
    if (!kind.carries) return V{};
    const V all = V{} + S(1);
    return kind.charge == Charge::beta ? decay : all - over_decay(all);
  }

  // The gradient of the state v that enters the step. No gradient passes through a reset at the next step.
  DEAL_INLINE V state_gradient(V v, V grad_h, V share) const {
    const V grad = grad_h * share;
    return kind.reset == Reset::next_hard ? grad * kept(v, fire(v)) : grad;
  }

  DEAL_INLINE V decay_gradient(V x, V v, V grad_h) const {
    if (kind.reset == Reset::next_hard) v = cleared(v, fire(v));
    if (kind.charge == Charge::beta) return grad_h * v;
    const V pull = v - S(kind.rest);
    const V pulled = kind.charge == Charge::decay_input ? x - pull : -pull;
    return kind.rate ? grad_h * pulled : -(grad_h * over_decay(over_decay(pulled)));
  }

  DEAL_INLINE V threshold_gradient(V v, V h, V s, V slope, V grad_s, V grad_v, V grad_h) const {
    V grad_spike = grad_s;
    if (!kind.detach_reset && resets_now()) grad_spike = grad_spike + grad_v * reset_slope(h);
    const V moved = kind.fire == Fire::levels ? slope * (h / threshold) : slope;
    V grad = -(grad_spike * moved);
    if (kind.own_amount) return grad;
    if (kind.reset == Reset::soft) grad = grad - grad_v * s;
    if (kind.reset == Reset::twice_soft) grad = grad - grad_v * (s - fire(v));
    return subtracts_first() ? grad - grad_h * fire(v) : grad;
  }

  // What a soft reset subtracts.
  DEAL_INLINE V amount() const { return kind.own_amount ? V{} + S(kind.amount) : threshold; }

  // Whether the spike of the step before subtracts from the charged membrane.
  DEAL_INLINE bool subtracts_first() const {
    return kind.reset == Reset::next_soft || kind.reset == Reset::twice_soft;
  }

 private:
  DEAL_INLINE V slope_at(V u) const {
    return surrogate_slope<V>(kind.surrogate, S(kind.alpha), S(kind.height), S(kind.outside), u);
  }

  DEAL_INLINE V charged(V v, V x) const {
    const S rest = S(kind.rest);
    switch (kind.charge) {
      case Charge::decay_input: return v + over_decay(x - (v - rest));
      case Charge::decay: return (v - over_decay(v - rest)) + x;
      default: return decay * v + x;
    }
  }

  // h after a hard reset by the spikes s.
  DEAL_INLINE V cleared(V h, V s) const {
    if (kind.fire == Fire::levels) return s * S(kind.reset_to) + (S(1) - s) * h;
    return select(fires(h), V{} + S(kind.reset_to), h);
  }

  DEAL_INLINE bool resets_now() const {
    return kind.reset == Reset::hard || kind.reset == Reset::soft || kind.reset == Reset::twice_soft;
  }

  // dv/ds through the reset.
  DEAL_INLINE V reset_slope(V h) const { return kind.reset == Reset::hard ? S(kind.reset_to) - h : -amount(); }

  // dv/dh at a constant spike.
  DEAL_INLINE V kept(V h, V s) const {
    if (kind.reset != Reset::hard && kind.reset != Reset::next_hard) return V{} + S(1);
    return kind.fire == Fire::levels ? S(1) - s : select(fires(h), S(0), S(1));
  }

  DEAL_INLINE V clamp(V ratio) const {
    const V raised = select(ratio < S(0), V{}, ratio);
    return select(raised > S(kind.levels), V{} + S(kind.levels), raised);
  }

  // Adding and subtracting 1.5 * 2^(mantissa bits) rounds to the nearest integer, ties to even.
  DEAL_INLINE static V round_half_even(V a) {
    constexpr S magic = sizeof(S) == 4 ? S(12582912.0) : S(6755399441055744.0);
    return (a + magic) - magic;
  }
};

// Whether the output is a record, which is of the state type.
DEAL_INLINE bool is_record(const LifInput& a) {
  return a.output == Output::states || a.output == Output::membranes;
}

// Whether the gradients need the state that enters a step.
DEAL_INLINE bool needs_entered(const LifBackward& a) {
  const Reset reset = a.neuron.reset;
  const bool subtracts_first = reset == Reset::next_soft || reset == Reset::twice_soft;
  return a.grad_decay || reset == Reset::next_hard || (a.grad_threshold && subtracts_first);
}

}  // namespace deal
