// The boundary of the degradation mixture, shared by CPU and CUDA. Images are [batch, channels, height, width].
#pragma once
#include "lif.h"

namespace deal {

enum class Degradation : int {
  identity,
  contrast,        // strength: the share of the image in the blend
  saturation,      // likewise
  sharpness,       // likewise
  gaussian_blur,   // values: a deviation [batch, stages]
  max_pool,        // strength: the factor of the resize
  average_pool,    // likewise
  bicubic,         // likewise
  posterize,       // strength: the bits that are kept
  column_stripes,  // values: [batch, stages, width]
  row_stripes,     // values: [batch, stages, height]
  column_gain,     // values: [batch, stages, width]
  noise,           // values: [batch, stages, channels, height, width]
};

struct Operation {
  Degradation kind;
  double strength;
  bool straight_through;  // of posterize: its gradient is that of the clamp before it
  const void* values;     // of the state type; what is random was drawn before
};

// Of every sample and stage: y = the sum over operations of weight * operation(x), and the next stage's x is this y.
struct Mixture {
  DType dtype;
  int64_t batch, channels, height, width, stages;
  int operations;
  const Operation* operation;
  const void* x;
  const void* weights;  // [batch, stages, operations], of the state type
};

struct MixtureForward {
  Mixture mixture;
  void* y;
  void* inputs;  // [stages - 1, batch, channels, height, width]: what the stages after the first read; or null
};

struct MixtureBackward {
  Mixture mixture;
  const void* inputs;  // as the forward pass wrote them
  const void* grad;    // of y
  void *grad_x, *grad_weights;  // null where not wanted
};

}  // namespace deal
