// What the formulas need from the platform they are compiled for.
//
// The formulas are templates over a value type V: float or double for one value, Lanes for the few values of a CUDA
// thread, a Pack or a Pair of Packs for the SIMD vectors of a CPU. Each has arithmetic, comparisons that return a mask,
// select, absolute, and exponential2 (for arguments up to zero); each but Lanes has at_least, at_most, and logistic,
// 1 / (1 + exp(-a)).
#pragma once
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define DEAL_INLINE __host__ __device__ __forceinline__
#else
#define DEAL_INLINE inline __attribute__((always_inline))
#endif
#define DEAL_FLAT __attribute__((always_inline))  // for lambdas

namespace deal {

template <class V>
struct ScalarOf {
  using type = V;
};
template <class V>
using scalar_t = typename ScalarOf<V>::type;

template <class S>
DEAL_INLINE S select(bool mask, S yes, S no) {
  return mask ? yes : no;
}

// The larger and the smaller of a and the bound. NaN stays NaN.
DEAL_INLINE float at_least(float bound, float a) { return a < bound ? bound : a; }
DEAL_INLINE double at_least(double bound, double a) { return a < bound ? bound : a; }
DEAL_INLINE float at_most(float bound, float a) { return a > bound ? bound : a; }
DEAL_INLINE double at_most(double bound, double a) { return a > bound ? bound : a; }

DEAL_INLINE float absolute(float a) { return fabsf(a); }
DEAL_INLINE double absolute(double a) { return fabs(a); }
DEAL_INLINE float exponential2(float z) { return exp2f(z); }
DEAL_INLINE double exponential2(double z) { return exp2(z); }
DEAL_INLINE float squareroot(float a) { return sqrtf(a); }
DEAL_INLINE double squareroot(double a) { return sqrt(a); }
DEAL_INLINE float logistic(float a) { return 1.0f / (1.0f + expf(-a)); }
DEAL_INLINE double logistic(double a) { return 1.0 / (1.0 + exp(-a)); }

}  // namespace deal
