// The constants of a neuron.
#pragma once
#include "../../math/platform.h"
#include "../../types.h"

namespace deal {
namespace cuda {

// The constants of a neuron in float32, so that threads need not convert them.
struct Numbers {
  float decay, threshold, rest, reset_to, amount, alpha, height, outside, levels, scale;
};

inline Numbers numbers_of(const Neuron& n) {
  return {float(n.decay), float(n.threshold), float(n.rest),    float(n.reset_to), float(n.amount),
          float(n.alpha), float(n.height),    float(n.outside), float(n.levels),   float(n.scale)};
}

__device__ __forceinline__ Neuron with_numbers(Neuron kind, const Numbers& numbers) {
  kind.rest = numbers.rest;
  kind.reset_to = numbers.reset_to;
  kind.amount = numbers.amount;
  kind.alpha = numbers.alpha;
  kind.height = numbers.height;
  kind.outside = numbers.outside;
  kind.levels = numbers.levels;
  kind.scale = numbers.scale;
  return kind;
}

}  // namespace cuda
}  // namespace deal
