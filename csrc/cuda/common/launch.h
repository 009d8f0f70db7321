// Kernel launches: the grid and error messages. The caller has made the device current.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace deal {
namespace cuda {

constexpr int kBlock = 128;  // threads of a block; small blocks spread a small layer over more multiprocessors

inline const char* error_of(cudaError_t code) { return code == cudaSuccess ? nullptr : cudaGetErrorString(code); }

// Launches a kernel on at least `threads` threads, with `bytes` bytes of shared memory per thread. It never waits and
// never allocates, so a CUDA graph can capture it.
template <class Arguments>
const char* launch(void (*kernel)(Arguments), Arguments arguments, int64_t threads, int bytes, cudaStream_t stream) {
  const int64_t blocks = (threads + kBlock - 1) / kBlock;
  if (blocks > INT32_MAX) return "a CUDA grid has no room for so many neurons";
  void* pointers[] = {&arguments};
  const size_t shared = size_t(bytes) * kBlock;
  return error_of(cudaLaunchKernel(kernel, dim3(unsigned(blocks)), dim3(kBlock), pointers, shared, stream));
}

// The first element of this thread, where each thread has `each` elements.
__device__ __forceinline__ int64_t first_of_thread(int each) {
  return (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * each;
}

__device__ __forceinline__ void* block_memory() {
  extern __shared__ uint4 shared_words[];
  return shared_words;
}

}  // namespace cuda
}  // namespace deal
