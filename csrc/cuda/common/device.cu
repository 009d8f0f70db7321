// Whether the kernels can run on a GPU.
#include <cuda_runtime.h>

#include "kernels.h"

namespace deal {
namespace cuda {
namespace {

__global__ void nothing(int) {}

std::string version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

}  // namespace

std::string problem() {
  int driver = 0, runtime = 0;
  cudaError_t error = cudaDriverGetVersion(&driver);
  if (error == cudaSuccess) error = cudaRuntimeGetVersion(&runtime);
  if (error == cudaSuccess && driver / 1000 < runtime / 1000)
    return "the driver is for CUDA " + version(driver) + ", and the kernels are built with CUDA " + version(runtime);
  cudaFuncAttributes attributes;
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, nothing);
  cudaGetLastError();  // a later call is not to find this error
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

}  // namespace cuda
}  // namespace deal
