// The types of elements, chosen at run time.
#pragma once
#include "../../types.h"
#include "simd.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// Calls run(T{}) with the type of the elements.
template <class Run>
void with_type(DType dtype, const Run& run) {
  switch (dtype) {
    case DType::float32: return run(float{});
    case DType::float16: return run(Half{});
    case DType::bfloat16: return run(BFloat{});
    case DType::float64: return run(double{});
  }
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
