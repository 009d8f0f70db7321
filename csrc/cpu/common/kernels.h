// The entry points of the CPU kernels, compiled once per instruction set, and the choice of the set in use.
#pragma once
#include "../../types.h"

// Calls of_each(name, argument) for every kernel.
#define DEAL_EACH_KERNEL(of_each)                     \
  of_each(lif_forward, LifForward)                    \
  of_each(lif_backward, LifBackward)                  \
  of_each(psn_forward, PsnForward)                    \
  of_each(psn_backward, PsnBackward)                  \
  of_each(multistate_forward, MultistateForward)      \
  of_each(multistate_backward, MultistateBackward)    \
  of_each(tdbn_moments, TdbnMoments)            \
  of_each(tdbn_normalise, TdbnNormalise)        \
  of_each(tdbn_gradient_sums, TdbnGradientSums) \
  of_each(tdbn_gradient, TdbnGradient)          \
  of_each(tdbn_scale, TdbnScale)                \
  of_each(tdbn_factors, TdbnFactors)            \
  of_each(ssim, Ssim)                                 \
  of_each(degradation_forward, DegradationForward)            \
  of_each(degradation_backward, DegradationBackward)          \
  of_each(consensus, Consensus)                       \
  of_each(conv_spectrum, ConvSpectrum)                \
  of_each(conv_forward, ConvForward)                  \
  of_each(conv_backward, ConvBackward)

namespace deal {

#define DEAL_DECLARE(name, Argument) void name(const Argument&, int threads);
namespace baseline {
DEAL_EACH_KERNEL(DEAL_DECLARE)
}
namespace avx2 {
DEAL_EACH_KERNEL(DEAL_DECLARE)
}
namespace avx512 {
DEAL_EACH_KERNEL(DEAL_DECLARE)
}
#undef DEAL_DECLARE

struct Kernels {
  const char* isa;
#define DEAL_POINTER(name, Argument) void (*name)(const Argument&, int threads);
  DEAL_EACH_KERNEL(DEAL_POINTER)
#undef DEAL_POINTER
};

// The best set this processor runs, or the one named by DEAL_KERNELS_ISA. Throws std::runtime_error if that one is
// unknown or this processor does not run it.
const Kernels& kernels();

}  // namespace deal
