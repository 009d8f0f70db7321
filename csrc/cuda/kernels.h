// The entry points of the CUDA kernels. Each returns nullptr, or what went wrong.
#pragma once
#include "../lif.h"

struct CUstream_st;

namespace deal {
namespace cuda {

// Steps whose membranes a thread holds at once. A longer backward pass needs `starts`, the state at
// the start of every segment: [ceil(steps / kSegment), neurons] floats.
constexpr int kSegment = 16;

const char* lif_forward(const LifForward&, int device, CUstream_st*);
const char* lif_backward(const LifBackward&, float* starts, int device, CUstream_st*);

}  // namespace cuda
}  // namespace deal
