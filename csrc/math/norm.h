// Batch norm of one value, given the statistics of its channel.
#pragma once
#include "platform.h"

namespace deal {

template <class V>
DEAL_INLINE V normalised(V x, V mean, V scale, V shift) {
  return (x - mean) * scale + shift;
}

// The gradient of x: the direct part, and the parts through the variance and the mean of its channel, each with one
// factor per channel.
template <class V>
DEAL_INLINE V norm_gradient(V grad, V x, V mean, V direct, V by_variance, V by_mean) {
  return (grad * direct + (x - mean) * by_variance) + by_mean;
}

// One over the deviation of a channel.
template <class S>
DEAL_INLINE S inverse_deviation(S variance, S eps) {
  return S(1) / squareroot(variance + eps);
}

// The factors of norm_gradient of a channel.
template <class S>
struct NormFactors {
  S direct, by_variance, by_mean;
};

// From the sums of the gradient and of gradient * (x - mean) over all values of the channel. `share` is minus one over
// their number, or 0 where the statistics do not depend on x.
template <class S>
DEAL_INLINE NormFactors<S> norm_factors(S grads, S products, S weight, S inverse, S share) {
  const S direct = weight * inverse;
  const S of_each = direct * share;
  return {direct, (products * of_each) * (inverse * inverse), grads * of_each};
}

}  // namespace deal
