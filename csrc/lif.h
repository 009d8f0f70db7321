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

struct LifInput {
  Neuron neuron;
  DType dtype;
  Output output;
  int64_t steps, neurons;
  int64_t time_stride;  // elements between two steps of x; 0 repeats the same current
  const void* x;
  const void* v0;       // state type; null starts at rest
  Parameter decay, threshold;
};

struct LifForward : LifInput {
  void* out;            // [T, N], [N] for the mean, [T, ceil(N / 8)] bytes for packed bits
  void* v;              // [N] final state, or null
};

struct LifBackward : LifInput {
  bool constant;               // x is one current for all steps: grad_x is the sum over time
  const void* grad;            // like the output
  const void* grad_v;          // [N] gradient of the final state, or null
  void* grad_x;
  void *grad_v0;               // [N] each, or null; of the parameters, each neuron's own share
  void *grad_decay, *grad_threshold;
};

}  // namespace deal
