// The boundary of the LIF kernels: plain sizes, strides and pointers, shared by CPU and CUDA.
// Neurons are numbered in memory order; time is the outer axis.
#pragma once
#include <cstdint>

#include "math/neuron.h"

namespace deal {

enum class DType : int { float32, float16, bfloat16, float64 };
enum class Output : int { spikes, mean, packed };

// One value for all neurons (channels == 1) or one per channel; neuron n is of channel
// (n / inner) % channels. Without data the neuron's own constant holds.
struct Parameter {
  const void* data;
  int64_t channels;
  int64_t inner;
};

// An input that is normalised on its way in, each of the three one value per channel; without a mean
// x is taken as it is.
struct Norm {
  Parameter mean, scale, shift;
  const void* shortcut;  // added afterwards, [T, N] or [N] like x, its steps side by side; or null
};

struct LifInput {
  Neuron neuron;
  DType dtype;
  Output output;
  int64_t steps, neurons;
  int64_t time_stride;  // elements between two steps of x; 0 repeats the same current
  const void* x;
  const void* v0;       // state type; null starts at rest
  Parameter decay, threshold;
  Norm norm;
};

struct LifForward : LifInput {
  void* out;            // [T, N], [N] for the mean, [T, ceil(N / 8)] bytes for packed bits
  void* v;              // [N] final state, or null
};

struct LifBackward : LifInput {
  bool constant;               // x is one current for all steps: grad_x is the sum over time
  const void* grad;            // like the output
  const void* grad_v;          // [N] gradient of the final state, or null
  void* grad_x;                // of the normalised input, where there is a norm
  void *grad_v0;               // [N] each, or null; of the parameters, each neuron's own share
  void *grad_decay, *grad_threshold;
  // With a norm: the sums of grad_x and of grad_x * (x - mean). [2, channels] on a CPU, elsewhere each
  // neuron's own share, [2, N].
  void* norm_sums;
};

}  // namespace deal
