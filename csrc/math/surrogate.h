// Surrogates for the derivative of the step function, at u = h - threshold.
#pragma once
#include "../types.h"
#include "platform.h"

namespace deal {

// Comparisons are ordered such that NaN propagates, as in torch.
template <class V>
DEAL_INLINE V surrogate_slope(Surrogate kind, scalar_t<V> alpha, scalar_t<V> height, scalar_t<V> outside, V u) {
  using S = scalar_t<V>;
  constexpr S half_pi = S(1.57079632679489661923);
  constexpr S log2_e = S(1.44269504088896340736);
  switch (kind) {
    case Surrogate::sigmoid: {
      // sigma * (1 - sigma) is even in u; with e <= 1 there is neither overflow nor cancellation.
      const V e = exponential2((-log2_e * alpha) * absolute(u));
      const V d = S(1) + e;
      return (S(4) * height) * (e / (d * d));
    }
    case Surrogate::atan: {
      const V w = (half_pi * alpha) * u;
      return (alpha * S(0.5)) / (S(1) + w * w);
    }
    case Surrogate::triangle: {
      const V w = alpha - (alpha * alpha) * absolute(u);
      return select(w < S(0), V{}, w);
    }
    case Surrogate::rectangle: return select(absolute(u) < alpha, height, outside);
    case Surrogate::fast_sigmoid: {
      const V d = S(1) + alpha * absolute(u);
      return height / (d * d);
    }
    case Surrogate::erf: {
      constexpr S inverse_root_pi = S(0.56418958354775628695);
      const V w = alpha * u;
      return (alpha * inverse_root_pi) * exponential2(-log2_e * (w * w));
    }
    case Surrogate::exponential: return height * exponential2((-log2_e * alpha) * absolute(u));
    case Surrogate::sides: return select(u < S(0), outside, height);
    default: return select(u >= alpha, S(1), S(0)) * select(u <= height, S(1), S(0));
  }
}

}  // namespace deal
