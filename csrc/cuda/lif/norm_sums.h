// The sums of a norm's gradient by channel, in a fixed order: every block leaves its part of each plane, which is the
// neurons of a channel that lie side by side, and a second kernel adds up the parts of a channel.
#pragma once
#include "../../types.h"
#include "../common/block_sum.h"
#include "../common/lanes.h"

namespace deal {
namespace cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kTopsBytes = 1;  // shared memory of a thread: kBlock bytes have room for a pair of sums of each warp

// The part of the block b of the plane p is number b + p: from one part to the next, at least one of the two grows.
inline int64_t parts_of(int64_t neurons, int64_t inner, int each) {
  return (neurons + kBlock * each - 1) / (kBlock * each) + neurons / inner;
}

template <int L>
__device__ __forceinline__ float sum_of(const Lanes<L>& values) {
  float sum = values.at[0];
#pragma unroll
  for (int i = 1; i < L; ++i) sum += values.at[i];
  return sum;
}

// Leaves this block's parts. All of its threads call it, those past the last neuron with zeros; a thread's neurons are
// of one plane.
template <int L>
__device__ __forceinline__ void leave_parts(float* parts, int64_t neurons, int64_t inner, int64_t first,
                                            const Lanes<L>& grads, const Lanes<L>& products) {
  const int me = int(threadIdx.x), lane = me % kWarp;
  const int64_t plane = first / inner, place = first - plane * inner, to_end = (inner - place) / L;
  const int left = to_end < kBlock - me ? int(to_end) : kBlock - me;  // threads of the plane from this one on
  float grad = sum_of(grads), product = sum_of(products);
#pragma unroll
  for (int by = 1; by < kWarp; by *= 2) {
    const float next_grad = __shfl_down_sync(~0u, grad, by), next_product = __shfl_down_sync(~0u, product, by);
    if (by < left && lane + by < kWarp) grad += next_grad, product += next_product;
  }
  float* const tops = static_cast<float*>(block_memory());
  __syncthreads();
  if (lane == 0) tops[me / kWarp * 2] = grad, tops[me / kWarp * 2 + 1] = product;
  __syncthreads();
  const bool is_first = me == 0 || place == 0;
  if (!is_first || first >= neurons) return;
  for (int warp = me / kWarp + 1; warp * kWarp < me + left; ++warp)
    grad += tops[warp * 2], product += tops[warp * 2 + 1];
  float* const part = parts + (blockIdx.x + plane) * 2;
  part[0] = grad;
  part[1] = product;
}

struct Parts {
  const float* parts;
  float* sums;  // [2, channels]
  int64_t neurons, channels, inner;
  int64_t each;  // neurons of a block
};

// A block adds up the parts of its channel.
__global__ void __launch_bounds__(kBlock) add_parts(const Parts a) {
  const int64_t rows = a.neurons / (a.channels * a.inner);
  const int64_t most = (a.inner - 1) / a.each + 2;  // blocks of a plane
  double grad = 0, product = 0;
  for (int64_t i = threadIdx.x; i < rows * most; i += kBlock) {
    const int64_t row = i / most, plane = row * a.channels + blockIdx.x, first = plane * a.inner;
    const int64_t block = first / a.each + (i - row * most);
    if (block > (first + a.inner - 1) / a.each) continue;
    const float* const part = a.parts + (block + plane) * 2;
    grad += part[0];
    product += part[1];
  }
  grad = block_sum(grad);
  product = block_sum(product);
  if (threadIdx.x > 0) return;
  a.sums[blockIdx.x] = float(grad);
  a.sums[a.channels + blockIdx.x] = float(product);
}

inline const char* launch_add_parts(const LifBackward& a, const float* parts, int each, cudaStream_t stream) {
  const Parameter& of = a.norm.mean;
  const Parts call = {parts, static_cast<float*>(a.norm_sums), a.neurons, of.channels, of.inner, kBlock * each};
  return launch(add_parts, call, of.channels * kBlock, int(sizeof(double)), stream);
}

}  // namespace
}  // namespace cuda
}  // namespace deal
