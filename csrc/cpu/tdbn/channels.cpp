// Batch norm, channel by channel: the few values per channel that its other kernels need.
#include "../../math/norm.h"
#include "../common/dtype.h"
#include "../common/kernels.h"

namespace deal {
namespace DEAL_ISA {
namespace {

template <class S>
void scale(const TdbnScale& a) {
  const S *const variance = static_cast<const S*>(a.variance), *const weight = static_cast<const S*>(a.weight);
  S* const out = static_cast<S*>(a.out);
  for (int64_t c = 0; c < a.channels; ++c) {
    const S inverse = inverse_deviation(variance[c], S(a.eps));
    out[c] = weight[c] * inverse;
    out[a.channels + c] = inverse;
    out[2 * a.channels + c] = variance[c] * S(a.correction);
  }
}

template <class S>
void factors(const TdbnFactors& a) {
  const S *const sums = static_cast<const S*>(a.sums), *const own = static_cast<const S*>(a.own);
  const S *const weight = static_cast<const S*>(a.weight), *const inverse = static_cast<const S*>(a.inverse);
  S* const out = static_cast<S*>(a.out);
  for (int64_t c = 0; c < a.channels; ++c) {
    const NormFactors<S> found = norm_factors(sums[c], sums[a.channels + c], weight[c], inverse[c], S(a.share));
    out[c] = found.direct;
    out[a.channels + c] = found.by_variance;
    out[2 * a.channels + c] = found.by_mean;
    out[3 * a.channels + c] = own[a.channels + c] * inverse[c];
  }
}

}  // namespace

void tdbn_scale(const TdbnScale& a, int) { a.dtype == DType::float64 ? scale<double>(a) : scale<float>(a); }

void tdbn_factors(const TdbnFactors& a, int) { a.dtype == DType::float64 ? factors<double>(a) : factors<float>(a); }

}  // namespace DEAL_ISA
}  // namespace deal
