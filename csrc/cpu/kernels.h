// The entry points of the CPU kernels, one copy per instruction set, and the one in use.
#pragma once
#include "../lif.h"

#define DEAL_KERNELS                            \
  void lif_forward(const LifForward&, int threads); \
  void lif_backward(const LifBackward&, int threads);

namespace deal {
namespace baseline {
DEAL_KERNELS
}
namespace avx2 {
DEAL_KERNELS
}
namespace avx512 {
DEAL_KERNELS
}
#undef DEAL_KERNELS

struct Kernels {
  const char* isa;
  void (*lif_forward)(const LifForward&, int);
  void (*lif_backward)(const LifBackward&, int);
};

// The best set this machine runs, or the one DEAL_KERNELS_ISA names. Throws std::runtime_error
// when that one is unknown or the machine cannot run it.
const Kernels& kernels();

}  // namespace deal
