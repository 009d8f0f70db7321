// Threads. All use of OpenMP is here. Chunks are whole multiples of `grain` items and depend on the thread count alone.
#pragma once
#include <cstdint>

#include "buffer.h"
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace deal {

// True in a child that was forked from a process with this library loaded: the parent's threads do not exist there, and
// an OpenMP team would wait for them forever.
bool forked();

namespace DEAL_ISA {

// How many threads have enough to do.
DEAL_INLINE int useful_threads(int64_t items, int64_t items_worth_a_thread, int threads) {
  const int64_t useful = items / items_worth_a_thread + 1;
  return useful < threads ? int(useful) : threads;
}

// Calls body(begin, end, thread). No exception may leave an OpenMP region: if memory runs out in a thread, the others
// finish, and std::bad_alloc, the only exception of the kernels, is thrown after the region.
template <class Body>
void parallel_for(int64_t items, int64_t grain, int threads, const Body& body) {
#if defined(_OPENMP)
  if (threads > 1 && !forked()) {
    const int64_t grains = (items + grain - 1) / grain;
    const int64_t chunk = (grains + threads - 1) / threads * grain;
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(| : failed)
    for (int i = 0; i < threads; ++i) {
      const int64_t begin = i * chunk;
      const int64_t end = begin + chunk < items ? begin + chunk : items;
      try {
        if (begin < end) body(begin, end, i);
      } catch (...) {
        failed = 1;
      }
    }
    if (failed) out_of_memory();
    return;
  }
#endif
  body(0, items, 0);
}

}  // namespace DEAL_ISA
}  // namespace deal
