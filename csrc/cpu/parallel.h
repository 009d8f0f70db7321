// All of OpenMP. Chunks are whole multiples of `grain` items and depend on the thread count alone.
#pragma once
#include <cstdint>

#include "simd.h"
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace deal {

// True in a child that was forked from a process with this library loaded: the parent's threads
// do not exist there and an OpenMP team would wait for them for ever.
bool forked();

namespace DEAL_ISA {

// Calls body(begin, end, thread).
template <class Body>
void parallel_for(int64_t items, int64_t grain, int threads, const Body& body) {
#if defined(_OPENMP)
  if (threads > 1 && !forked()) {
    const int64_t grains = (items + grain - 1) / grain;
    const int64_t chunk = (grains + threads - 1) / threads * grain;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int i = 0; i < threads; ++i) {
      const int64_t begin = i * chunk;
      const int64_t end = begin + chunk < items ? begin + chunk : items;
      if (begin < end) body(begin, end, i);
    }
    return;
  }
#endif
  body(0, items, 0);
}

}  // namespace DEAL_ISA
}  // namespace deal
