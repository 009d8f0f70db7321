// The boundary of the batch norm kernels, shared by CPU and CUDA. A tensor is [steps, neurons] in memory
// order, and neuron n is of channel (n / inner) % channels. Values of a channel are of the state type.
#pragma once
#include "lif.h"

namespace deal {

struct Channels {
  DType dtype;
  int64_t steps, neurons;
  int64_t time_stride;  // elements between two steps of x; other tensors have their steps side by side
  int64_t channels, inner;
  const void* x;
};

// The mean and the variance of each channel, the latter of the values themselves, not an estimate.
struct ChannelMoments : Channels {
  void *mean, *variance;  // [C]
};

// out = (x - mean) * scale + shift
struct ChannelNormalise : Channels {
  const void *mean, *scale, *shift;  // [C]
  void* out;
};

// The sums of grad and of grad * (x - mean).
struct ChannelGradientSums : Channels {
  const void *grad, *mean;
  void* sums;  // [2, C]
};

// out = (grad * direct + (x - mean) * by_variance) + by_mean
struct ChannelGradient : Channels {
  const void *grad, *mean, *direct, *by_variance, *by_mean;
  void* out;  // may be grad
};

}  // namespace deal
