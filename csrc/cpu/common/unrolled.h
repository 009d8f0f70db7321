// Loops that are written out, so that the compiler keeps the elements of a local array in registers.
#pragma once
#include "simd.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// Calls body(0), body(1) and so on, to before body(end).
template <int end, int i = 0, class Body>
DEAL_INLINE void unrolled(const Body& body) {
  if constexpr (i < end) {
    body(i);
    unrolled<end, i + 1>(body);
  }
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
