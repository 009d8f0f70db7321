#include "kernels.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace deal {

#define DEAL_ENTRY(name, Argument) , name
#define DEAL_SET(isa)                                       \
  namespace isa {                                           \
  const Kernels set = {#isa DEAL_EACH_KERNEL(DEAL_ENTRY)};  \
  }
DEAL_SET(baseline)
#if defined(__x86_64__)
DEAL_SET(avx2)
DEAL_SET(avx512)
#endif

namespace {

#if defined(__x86_64__)
const Kernels sets[] = {avx512::set, avx2::set, baseline::set};

bool runs_here(const std::string& isa) {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (isa == "avx512")
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  return isa == "avx2" ? avx2 : true;
}
#else
const Kernels sets[] = {baseline::set};
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

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace deal
