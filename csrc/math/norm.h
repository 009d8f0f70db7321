// Batch norm of one channel, given its statistics; deal_kernels/lif/reference.py says the same in Python.
#pragma once
#include "platform.h"

namespace deal {

template <class V>
DEAL_INLINE V normalised(V x, V mean, V scale, V shift) {
  return (x - mean) * scale + shift;
}

// The gradient of x: what passes straight through, and what passes through the variance and the mean of
// its channel, each with a factor of the channel's.
template <class V>
DEAL_INLINE V norm_gradient(V grad, V x, V mean, V direct, V by_variance, V by_mean) {
  return (grad * direct + (x - mean) * by_variance) + by_mean;
}

}  // namespace deal
