#include "kernels.h"

#include <pthread.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace deal {
namespace {

#define DEAL_SET(isa)                                                                                   \
  Kernels{#isa, isa::lif_forward, isa::lif_backward, isa::channel_moments, isa::channel_normalise,       \
          isa::channel_gradient_sums, isa::channel_gradient, isa::ssim, isa::mixture_forward,          \
          isa::mixture_backward, isa::conv_spectrum, isa::conv_forward, isa::conv_backward}

#if defined(__x86_64__)
const Kernels sets[] = {DEAL_SET(avx512), DEAL_SET(avx2), DEAL_SET(baseline)};

bool runs_here(const std::string& isa) {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (isa == "avx512")
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  return isa == "avx2" ? avx2 : true;
}
#else
const Kernels sets[] = {DEAL_SET(baseline)};
bool runs_here(const std::string&) { return true; }
#endif

const Kernels& choose() {
  const char* named = std::getenv("DEAL_KERNELS_ISA");
  std::string known;
  for (const Kernels& set : sets) {
    if (named && *named ? set.isa == std::string(named) : runs_here(set.isa)) {
      if (runs_here(set.isa)) return set;
      throw std::runtime_error(std::string("DEAL_KERNELS_ISA=") + named + ": this processor does not run it");
    }
    known += std::string(known.empty() ? "" : ", ") + set.isa;
  }
  throw std::runtime_error(std::string("DEAL_KERNELS_ISA=") + named + " is not one of " + known);
}

struct Workspace {
  float* floats = nullptr;
  int64_t count = 0;
  ~Workspace() { std::free(floats); }
};
thread_local Workspace owned;

bool in_forked_child = false;
const int registered = pthread_atfork(nullptr, nullptr, [] { in_forked_child = true; });

}  // namespace

bool forked() { return in_forked_child; }

float* workspace(int64_t floats) {
  if (floats > owned.count) {
    std::free(owned.floats);
    owned.count = (floats + 1023) / 1024 * 1024;
    owned.floats = static_cast<float*>(std::aligned_alloc(4096, size_t(owned.count) * sizeof(float)));
  }
  return owned.floats;
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace deal
