// The entry points of the CUDA kernels. Each returns nullptr, or an error message.
#pragma once
#include <string>

#include "../../types.h"

struct CUstream_st;

namespace deal {
namespace cuda {

// Why the kernels cannot run on the current device; empty if they can.
std::string problem();

// The size in bytes of the workspace that a call needs in device memory. Its address is a multiple of 16.
int64_t workspace_bytes(const LifBackward&);
int64_t workspace_bytes(const MultistateBackward&);
int64_t workspace_bytes(const TdbnMoments&);
int64_t workspace_bytes(const TdbnGradientSums&);
int64_t workspace_bytes(const DegradationForward&);
int64_t workspace_bytes(const DegradationBackward&);
inline int64_t workspace_bytes(const LifForward&) { return 0; }
inline int64_t workspace_bytes(const PsnForward&) { return 0; }
inline int64_t workspace_bytes(const PsnBackward&) { return 0; }
inline int64_t workspace_bytes(const MultistateForward&) { return 0; }
inline int64_t workspace_bytes(const TdbnNormalise&) { return 0; }
inline int64_t workspace_bytes(const TdbnGradient&) { return 0; }
inline int64_t workspace_bytes(const TdbnScale&) { return 0; }
inline int64_t workspace_bytes(const TdbnFactors&) { return 0; }
inline int64_t workspace_bytes(const Ssim&) { return 0; }
inline int64_t workspace_bytes(const PadForward&) { return 0; }
inline int64_t workspace_bytes(const PadBackward&) { return 0; }

const char* lif_forward(const LifForward&, void* workspace, CUstream_st*);
const char* lif_backward(const LifBackward&, void* workspace, CUstream_st*);
const char* psn_forward(const PsnForward&, void* workspace, CUstream_st*);
const char* psn_backward(const PsnBackward&, void* workspace, CUstream_st*);
const char* multistate_forward(const MultistateForward&, void* workspace, CUstream_st*);
const char* multistate_backward(const MultistateBackward&, void* workspace, CUstream_st*);
const char* tdbn_moments(const TdbnMoments&, void* workspace, CUstream_st*);
const char* tdbn_normalise(const TdbnNormalise&, void* workspace, CUstream_st*);
const char* tdbn_gradient_sums(const TdbnGradientSums&, void* workspace, CUstream_st*);
const char* tdbn_gradient(const TdbnGradient&, void* workspace, CUstream_st*);
const char* tdbn_scale(const TdbnScale&, void* workspace, CUstream_st*);
const char* tdbn_factors(const TdbnFactors&, void* workspace, CUstream_st*);
const char* degradation_forward(const DegradationForward&, void* workspace, CUstream_st*);
const char* degradation_backward(const DegradationBackward&, void* workspace, CUstream_st*);
const char* ssim(const Ssim&, void* workspace, CUstream_st*);
const char* pad_forward(const PadForward&, void* workspace, CUstream_st*);
const char* pad_backward(const PadBackward&, void* workspace, CUstream_st*);

// Whether lif_backward leaves the sums of a norm by channel, given how many neurons of a channel lie side by side.
// Otherwise it leaves each neuron's contribution.
bool sums_by_channel(int64_t inner);

// How many values ssim() writes as the loss, which is their sum plus the offset.
int64_t ssim_parts(const Ssim&);

}  // namespace cuda
}  // namespace deal
