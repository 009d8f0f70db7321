// As much of the CUDA runtime as csrc/cuda needs to run on a CPU. The threads of a block take turns: one
// runs until it waits for the others, or ends.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <set>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  explicit dim3(unsigned x) : x(x) {}
};
inline dim3 threadIdx(0), blockIdx(0), blockDim(1), gridDim(1);

namespace deal {
namespace cuda {
extern uint4 shared_words[3072];  // the 48 KiB a block may have without asking
}
}  // namespace deal

template <class T>
T __ldcs(const T* p) {
  return *p;
}

struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchFailure = 719,
};

inline const char* cudaGetErrorString(cudaError_t code) {
  if (code == cudaErrorLaunchFailure) return "threads wait for others that have ended";
  if (code == cudaErrorNoKernelImageForDevice) return "no kernel image is available for execution on the device";
  return "an illegal memory access was encountered";
}

// What is installed, and whether there is code for the device.
inline int driver_version = 13000;
inline bool has_image = true;
struct cudaFuncAttributes {};
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = driver_version;
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13020;
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel) {
  return has_image ? cudaSuccess : cudaErrorNoKernelImageForDevice;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

struct Thread {
  ucontext_t context;
  bool ended;
  alignas(16) unsigned char stack[1 << 18];
};
inline Thread threads[128];
inline std::function<void()> body;  // of every thread
inline ucontext_t turns;            // what gives the threads theirs

inline void __syncthreads() { swapcontext(&threads[threadIdx.x].context, &turns); }

// All threads of a block call it together.
inline float __shfl_down_sync(unsigned, float value, unsigned by) {
  static float values[sizeof threads / sizeof *threads];
  const unsigned me = threadIdx.x;
  values[me] = value;
  __syncthreads();
  const float found = me % 32 + by < 32 ? values[me + by] : value;
  __syncthreads();
  return found;
}

inline void run_thread() {
  body();
  threads[threadIdx.x].ended = true;
}

inline cudaError_t run_block() {
  for (unsigned i = 0; i < blockDim.x; ++i) {
    Thread& thread = threads[i];
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack;
    thread.context.uc_stack.ss_size = sizeof thread.stack;
    thread.context.uc_link = &turns;
    thread.ended = false;
    makecontext(&thread.context, run_thread, 0);
  }
  for (unsigned ended = 0; ended == 0;) {
    for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x) {
      swapcontext(&turns, &threads[threadIdx.x].context);
      ended += threads[threadIdx.x].ended;
    }
    if (ended != 0 && ended != blockDim.x) return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}

inline std::set<std::uintptr_t> launched;  // the kernels so far

// Shared memory is filled with NaN before every block: nothing may be read before it is written, and
// nothing written past the bytes that were asked for.
template <class Arguments>
cudaError_t cudaLaunchKernel(void (*kernel)(Arguments), dim3 grid, dim3 block, void** arguments, size_t bytes,
                             cudaStream_t) {
  unsigned char* const memory = reinterpret_cast<unsigned char*>(deal::cuda::shared_words);
  constexpr size_t most = sizeof deal::cuda::shared_words;
  if (!has_image) return cudaErrorNoKernelImageForDevice;
  if (bytes > most || block.x > sizeof threads / sizeof *threads) return cudaErrorIllegalAddress;
  launched.insert(reinterpret_cast<std::uintptr_t>(kernel));
  gridDim = grid;
  blockDim = block;
  body = [=] { kernel(*static_cast<Arguments*>(arguments[0])); };
  for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
    std::memset(memory, 0xff, most);
    if (const cudaError_t error = run_block()) return error;
    for (size_t i = bytes; i < most; ++i)
      if (memory[i] != 0xff) return cudaErrorIllegalAddress;
  }
  return cudaSuccess;
}
