// The CUDA kernels as a library for ctypes. The numbers are the arguments of csrc/bindings, in order.
#include "../../csrc/cuda/kernels.h"

#include <cuda_runtime.h>

#include <vector>

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
  const auto of_norm = [n](int64_t address) { return Parameter{pointer(address), n[15], n[16]}; };
  return {neuron_of(neuron), DType(n[0]), Output(n[1]), n[2], n[3], n[4], pointer(n[5]), pointer(n[6]),
          {pointer(n[7]), n[8], n[11]}, {pointer(n[9]), n[10], n[11]},
          {of_norm(n[12]), of_norm(n[13]), of_norm(n[14]), pointer(n[17])}};
}

// Of n: the sizes, the addresses of x and weights, how many operations, and of each its kind, whether it is straight
// through, and its values; f has their strengths.
struct Mixing {
  std::vector<Operation> operations;
  Mixture mixture;
  const int64_t* rest;

  Mixing(const double* f, const int64_t* n) : rest(n + 9 + 3 * n[8]) {
    for (int j = 0; j < int(n[8]); ++j) {
      const int64_t* const each = n + 9 + 3 * j;
      operations.push_back({Degradation(each[0]), f[j], each[1] != 0, pointer(each[2])});
    }
    mixture = {DType(n[0]), n[1], n[2], n[3], n[4], n[5], int(n[8]), operations.data(), pointer(n[6]), pointer(n[7])};
  }
};

Channels channels_of(const int64_t* n) { return {DType(n[0]), n[1], n[2], n[3], n[4], n[5], pointer(n[6])}; }

}  // namespace
}  // namespace deal

using namespace deal;

extern "C" const char* forward(const double* neuron, const int64_t* n) {
  return cuda::lif_forward({input_of(neuron, n), pointer(n[18]), pointer(n[19])}, int(n[20]), nullptr);
}

extern "C" const char* backward(const double* neuron, const int64_t* n) {
  const LifBackward a = {input_of(neuron, n), n[18] != 0,     pointer(n[19]), pointer(n[20]), pointer(n[21]),
                         pointer(n[22]),      pointer(n[23]), pointer(n[24]), pointer(n[25])};
  return cuda::lif_backward(a, static_cast<float*>(pointer(n[26])), int(n[27]), nullptr);
}

extern "C" int channel_workspace(const int64_t* n) { return int(cuda::channel_workspace(n[0], n[1], n[2], n[3])); }

extern "C" const char* channel_moments(const int64_t* n) {
  const ChannelMoments a = {channels_of(n), pointer(n[7]), pointer(n[8])};
  return cuda::channel_moments(a, static_cast<float*>(pointer(n[9])), int(n[10]), nullptr);
}

extern "C" const char* channel_normalise(const int64_t* n) {
  const ChannelNormalise a = {channels_of(n), pointer(n[7]), pointer(n[8]), pointer(n[9]), pointer(n[10])};
  return cuda::channel_normalise(a, int(n[11]), nullptr);
}

extern "C" const char* channel_gradient_sums(const int64_t* n) {
  const ChannelGradientSums a = {channels_of(n), pointer(n[7]), pointer(n[8]), pointer(n[9])};
  return cuda::channel_gradient_sums(a, static_cast<float*>(pointer(n[10])), int(n[11]), nullptr);
}

extern "C" const char* channel_gradient(const int64_t* n) {
  const ChannelGradient a = {channels_of(n),  pointer(n[7]),  pointer(n[8]), pointer(n[9]),
                             pointer(n[10]), pointer(n[11]), pointer(n[12])};
  return cuda::channel_gradient(a, int(n[13]), nullptr);
}

// The numbers of csrc/ssim.h and where to run, apart from those that are not whole.
extern "C" const char* ssim(const double* f, const int64_t* n) {
  const Ssim a = {DType(n[0]), n[1],  n[2], n[3], n[4],           f[0],           f[1],      pointer(n[5]), pointer(n[6]), pointer(n[7]),
                  f[2],        f[3],  f[4], pointer(n[8]), pointer(n[9]), n[10] != 0, pointer(n[11]), pointer(n[12])};
  return cuda::ssim(a, int(n[13]), nullptr);
}

extern "C" int ssim_blocks(const int64_t* n) { return int(cuda::ssim_blocks(n[0], n[1], n[2], n[3] != 0)); }

extern "C" int64_t mixture_workspace(const double* f, const int64_t* n) {
  const Mixing call(f, n);
  return cuda::mixture_workspace(call.mixture, call.rest[0] != 0);
}

extern "C" const char* mixture_forward(const double* f, const int64_t* n) {
  const Mixing call(f, n);
  const int64_t* const r = call.rest;
  return cuda::mixture_forward({call.mixture, pointer(r[0]), pointer(r[1])}, pointer(r[2]), int(r[3]), nullptr);
}

extern "C" const char* mixture_backward(const double* f, const int64_t* n) {
  const Mixing call(f, n);
  const int64_t* const r = call.rest;
  const MixtureBackward a = {call.mixture, pointer(r[0]), pointer(r[1]), pointer(r[2]), pointer(r[3])};
  return cuda::mixture_backward(a, pointer(r[4]), int(r[5]), nullptr);
}

extern "C" int device() { return current_device; }
