// The entry points of the CUDA kernels. Each returns nullptr, or what went wrong.
#pragma once
#include "../degradation.h"
#include "../ssim.h"
#include "../tdbn.h"

struct CUstream_st;

namespace deal {
namespace cuda {

// Steps whose membranes a thread holds at once. A longer backward pass needs `starts`, the state at
// the start of every segment: [ceil(steps / kSegment), neurons] floats.
constexpr int kSegment = 16;

const char* lif_forward(const LifForward&, int device, CUstream_st*);
const char* lif_backward(const LifBackward&, float* starts, int device, CUstream_st*);

// The floats of a workspace, which holds what the blocks of a reduction found until it is put together.
int64_t channel_workspace(int64_t steps, int64_t neurons, int64_t channels, int64_t inner);

const char* channel_moments(const ChannelMoments&, float* workspace, int device, CUstream_st*);
const char* channel_normalise(const ChannelNormalise&, int device, CUstream_st*);
const char* channel_gradient_sums(const ChannelGradientSums&, float* workspace, int device, CUstream_st*);
const char* channel_gradient(const ChannelGradient&, int device, CUstream_st*);

// The bytes of a workspace, which begins on a multiple of 16.
int64_t mixture_workspace(const Mixture&, bool backward);
const char* mixture_forward(const MixtureForward&, void* workspace, int device, CUstream_st*);
const char* mixture_backward(const MixtureBackward&, void* workspace, int device, CUstream_st*);

// How many values ssim() writes as the loss, which is their sum and the offset.
int64_t ssim_blocks(int64_t planes, int64_t height, int64_t width, bool gradient);
const char* ssim(const Ssim&, int device, CUstream_st*);

}  // namespace cuda
}  // namespace deal
