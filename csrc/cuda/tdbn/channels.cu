// Batch norm, channel by channel: the few values per channel that its other kernels need. A thread has one channel.
#include "../../math/norm.h"
#include "../common/kernels.h"
#include "../common/launch.h"

namespace deal {
namespace cuda {
namespace {

__global__ void __launch_bounds__(kBlock) scale(const TdbnScale a) {
  const int64_t channel = first_of_thread(1);
  if (channel >= a.channels) return;
  const float variance = static_cast<const float*>(a.variance)[channel];
  const float inverse = inverse_deviation(variance, float(a.eps));
  float* const out = static_cast<float*>(a.out) + channel;
  out[0] = static_cast<const float*>(a.weight)[channel] * inverse;
  out[a.channels] = inverse;
  out[2 * a.channels] = variance * float(a.correction);
}

__global__ void __launch_bounds__(kBlock) factors(const TdbnFactors a) {
  const int64_t channel = first_of_thread(1);
  if (channel >= a.channels) return;
  const float *const sums = static_cast<const float*>(a.sums) + channel;
  const float inverse = static_cast<const float*>(a.inverse)[channel];
  const NormFactors<float> found = norm_factors(sums[0], sums[a.channels], static_cast<const float*>(a.weight)[channel],
                                                inverse, float(a.share));
  float* const out = static_cast<float*>(a.out) + channel;
  out[0] = found.direct;
  out[a.channels] = found.by_variance;
  out[2 * a.channels] = found.by_mean;
  out[3 * a.channels] = static_cast<const float*>(a.own)[a.channels + channel] * inverse;
}

}  // namespace

const char* tdbn_scale(const TdbnScale& a, void*, CUstream_st* stream) {
  return launch(scale, a, a.channels, 0, stream);
}

const char* tdbn_factors(const TdbnFactors& a, void*, CUstream_st* stream) {
  return launch(factors, a, a.channels, 0, stream);
}

}  // namespace cuda
}  // namespace deal
