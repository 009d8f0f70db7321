// The boundary of the SSIM kernels, shared by CPU and CUDA. Images are [planes, height, width], rows side by side.
#pragma once
#include "lif.h"

namespace deal {

// The map has a value wherever a window is centred: everywhere, or `margin` pixels away from every edge.
struct Ssim {
  DType dtype;
  int64_t planes, height, width, margin;
  double c1, c2;
  const void *a, *b;
  void* map;  // [planes, height - 2 * margin, width - 2 * margin], or null

  // loss = offset + structure * the sum of the map + pixel * the sum of |a - b|
  double offset, structure, pixel;
  void* loss;  // null, or one value of the state type; on a GPU one double a block, without the offset

  // Gradients of the loss, times `grad`; null where not wanted.
  const void* grad;   // one value of the state type; or one for each value of the map; null is 1
  bool grad_of_map;
  void *grad_a, *grad_b;
};

}  // namespace deal
