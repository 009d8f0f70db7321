// The neurons of a thread as one value of the formulas in math/, so that branches on the kind of neuron are taken once
// for all of them.
#pragma once
#include <cuda_runtime.h>

#include "../../math/platform.h"

namespace deal {
namespace cuda {

template <int L>
struct Lanes {
  float at[L];
};
template <int L>
struct LaneMask {
  bool at[L];
};

}  // namespace cuda

template <int L>
struct ScalarOf<cuda::Lanes<L>> {
  using type = float;
};

namespace cuda {

#define DEAL_LANEWISE(Result, expression)  \
  Result<L> result;                        \
  _Pragma("unroll")                        \
  for (int i = 0; i < L; ++i) result.at[i] = expression; \
  return result;

#define DEAL_OPERATOR(Result, op)                                                                        \
  template <int L>                                                                                       \
  DEAL_INLINE Result<L> operator op(Lanes<L> a, Lanes<L> b) { DEAL_LANEWISE(Result, a.at[i] op b.at[i]) } \
  template <int L>                                                                                       \
  DEAL_INLINE Result<L> operator op(Lanes<L> a, float b) { DEAL_LANEWISE(Result, a.at[i] op b) }          \
  template <int L>                                                                                       \
  DEAL_INLINE Result<L> operator op(float a, Lanes<L> b) { DEAL_LANEWISE(Result, a op b.at[i]) }
DEAL_OPERATOR(Lanes, +)
DEAL_OPERATOR(Lanes, -)
DEAL_OPERATOR(Lanes, *)
DEAL_OPERATOR(Lanes, /)
DEAL_OPERATOR(LaneMask, <)
DEAL_OPERATOR(LaneMask, <=)
DEAL_OPERATOR(LaneMask, >)
DEAL_OPERATOR(LaneMask, >=)
#undef DEAL_OPERATOR

template <int L>
DEAL_INLINE Lanes<L> operator-(Lanes<L> a) {
  DEAL_LANEWISE(Lanes, -a.at[i])
}
template <int L>
DEAL_INLINE Lanes<L> select(LaneMask<L> mask, Lanes<L> yes, Lanes<L> no) {
  DEAL_LANEWISE(Lanes, mask.at[i] ? yes.at[i] : no.at[i])
}
template <int L>
DEAL_INLINE Lanes<L> select(LaneMask<L> mask, float yes, float no) {
  DEAL_LANEWISE(Lanes, mask.at[i] ? yes : no)
}
template <int L>
DEAL_INLINE Lanes<L> absolute(Lanes<L> a) {
  DEAL_LANEWISE(Lanes, fabsf(a.at[i]))
}
template <int L>
__device__ __forceinline__ Lanes<L> exponential2(Lanes<L> z) {
  DEAL_LANEWISE(Lanes, exp2f(z.at[i]))
}
// a * b + c, rounded once.
template <int L>
DEAL_INLINE Lanes<L> fused(float a, Lanes<L> b, Lanes<L> c) {
  DEAL_LANEWISE(Lanes, fmaf(a, b.at[i], c.at[i]))
}
template <int L>
DEAL_INLINE Lanes<L> filled(float value) {
  DEAL_LANEWISE(Lanes, value)
}
#undef DEAL_LANEWISE

}  // namespace cuda
}  // namespace deal
