// The CUDA kernels as a library for ctypes. The numbers are the arguments of csrc/bindings.cpp, in order.
#include "../../csrc/cuda/kernels.h"

#include <cuda_runtime.h>

namespace deal {
namespace cuda {
alignas(16) uint4 shared_words[3072];
}

namespace {

void* pointer(int64_t address) { return reinterpret_cast<void*>(address); }

Neuron neuron_of(const double* n) {
  return {Charge(int(n[0])), Fire(int(n[1])), Reset(int(n[2])), Surrogate(int(n[3])), n[4] != 0, n[5] != 0,
          n[6],              n[7],            n[8],             n[9],                 n[10]};
}

LifInput input_of(const double* neuron, const int64_t* n) {
  return {neuron_of(neuron), DType(n[0]), Output(n[1]), n[2], n[3], n[4], pointer(n[5]), pointer(n[6]),
          {pointer(n[7]), n[8], n[11]}, {pointer(n[9]), n[10], n[11]}};
}

}  // namespace
}  // namespace deal

extern "C" const char* forward(const double* neuron, const int64_t* n) {
  const deal::LifForward a = {deal::input_of(neuron, n), deal::pointer(n[12]), deal::pointer(n[13])};
  return deal::cuda::lif_forward(a, int(n[14]), nullptr);
}

extern "C" const char* backward(const double* neuron, const int64_t* n) {
  using deal::pointer;
  const deal::LifBackward a = {deal::input_of(neuron, n), n[12] != 0,     pointer(n[13]), pointer(n[14]),
                               pointer(n[15]),            pointer(n[16]), pointer(n[17]), pointer(n[18])};
  return deal::cuda::lif_backward(a, static_cast<float*>(pointer(n[19])), int(n[20]), nullptr);
}

extern "C" int device() { return current_device; }
