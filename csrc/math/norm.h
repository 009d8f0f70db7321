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

}  // namespace deal
