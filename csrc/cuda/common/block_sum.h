// The sum of one value per thread of a block, in a fixed order.
#pragma once
#include "launch.h"

namespace deal {
namespace cuda {

// Returns the sum to all threads. Uses kBlock doubles at the beginning of the shared memory.
__device__ __forceinline__ double block_sum(double mine) {
  double* const sums = static_cast<double*>(block_memory());
  const int me = int(threadIdx.x);
  __syncthreads();
  sums[me] = mine;
  for (int half = kBlock / 2; half > 0; half /= 2) {
    __syncthreads();
    if (me < half) sums[me] += sums[me + half];
  }
  __syncthreads();
  return sums[0];
}

}  // namespace cuda
}  // namespace deal
