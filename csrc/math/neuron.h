// The spiking neuron: charge, fire, reset, and their derivatives. deal_kernels/lif/reference.py is the same in Python.
// The order of operations and the true division are part of the definition, because they decide the bits.
#pragma once
#include "surrogate.h"

namespace deal {

// One time step of a group of neurons. V holds one value per neuron; the decay and threshold, P, may be shared.
template <class V, class P = V>
struct Cell {
  using S = scalar_t<V>;
  Neuron kind;
  P decay, threshold;

  DEAL_INLINE V over_decay(V a) const { return kind.multiply ? a * S(1 / kind.decay) : a / decay; }

  DEAL_INLINE V charge(V v, V x) const {
    const S rest = S(kind.rest);
    switch (kind.charge) {
      case Charge::decay_input: return v + over_decay(x - (v - rest));
      case Charge::decay: return (v - over_decay(v - rest)) + x;
      default: return decay * v + x;
    }
  }

  // Whether the neuron fires, where a spike has a single level.
  DEAL_INLINE auto fires(V h) const { return kind.fire == Fire::gt ? h > threshold : h >= threshold; }

  DEAL_INLINE V fire(V h) const {
    if (kind.fire == Fire::levels) return round_half_even(clamp(h / threshold));
    return select(fires(h), S(1), S(0));
  }

  DEAL_INLINE V reset(V h, V s) const {
    switch (kind.reset) {
      case Reset::hard:
        if (kind.fire == Fire::levels) return s * S(kind.rest) + (S(1) - s) * h;
        return select(fires(h), V{} + S(kind.rest), h);
      case Reset::soft: return h - s * threshold;
      default: return h;
    }
  }

  // ds/dh: the surrogate derivative; with several levels, the window in which the rounded ratio is not clamped.
  DEAL_INLINE V spike_slope(V h) const {
    if (kind.fire != Fire::levels)
      return surrogate_slope<V>(kind.surrogate, S(kind.alpha), S(kind.height), h - threshold);
    const V ratio = h / threshold;
    const V window = select(ratio >= S(0), S(1), S(0)) * select(ratio <= S(kind.levels), S(1), S(0));
    return window / threshold;
  }

  // dv/ds through the reset.
  DEAL_INLINE V reset_slope(V h) const {
    switch (kind.reset) {
      case Reset::hard: return S(kind.rest) - h;
      case Reset::soft: return V{} - threshold;
      default: return V{};
    }
  }

  // dv/dh at a constant spike.
  DEAL_INLINE V kept(V h, V s) const {
    if (kind.reset != Reset::hard) return V{} + S(1);
    return kind.fire == Fire::levels ? S(1) - s : select(fires(h), S(0), S(1));
  }

  // The gradient of h, given the gradients of the spike and of the state after the reset.
  DEAL_INLINE V charge_gradient(V h, V s, V slope, V grad_s, V grad_v) const {
    if (kind.reset == Reset::none) return grad_s * slope + grad_v;
    V through = kept(h, s);
    if (!kind.detach_reset) through = through + reset_slope(h) * slope;
    return grad_s * slope + grad_v * through;
  }

  // dh/dx and dh/dv: the gradients of the input and of the previous state are these factors times the gradient of h.
  DEAL_INLINE V input_share() const {
    const V all = V{} + S(1);
    return kind.charge == Charge::decay_input ? over_decay(all) : all;
  }

  DEAL_INLINE V state_share() const {
    const V all = V{} + S(1);
    return kind.charge == Charge::beta ? decay * all : all - over_decay(all);
  }

  // v is the state before the step.
  DEAL_INLINE V decay_gradient(V x, V v, V grad_h) const {
    if (kind.charge == Charge::beta) return grad_h * v;
    const V pull = v - S(kind.rest);
    const V divided = kind.charge == Charge::decay_input ? x - pull : -pull;
    return -(grad_h * over_decay(over_decay(divided)));
  }

  DEAL_INLINE V threshold_gradient(V h, V s, V slope, V grad_s, V grad_v) const {
    V grad_spike = grad_s;
    if (!kind.detach_reset && kind.reset != Reset::none) grad_spike = grad_spike + grad_v * reset_slope(h);
    const V moved = kind.fire == Fire::levels ? slope * (h / threshold) : slope;
    const V grad = -(grad_spike * moved);
    return kind.reset == Reset::soft ? grad - grad_v * s : grad;
  }

 private:
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

}  // namespace deal
