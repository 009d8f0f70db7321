// What the mathematics needs to know of the machine it is compiled for.
//
// The formulas are templates over a value type V: float or double for one neuron, Lanes of a few
// (CUDA), or a Pack of many and several of those (CPU). All have arithmetic, comparisons that yield a
// mask, select, absolute and exponential2 (of numbers up to zero), and all but Lanes at_least and at_most.
#pragma once
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define DEAL_INLINE __host__ __device__ __forceinline__
#else
#define DEAL_INLINE inline __attribute__((always_inline))
#endif
#define DEAL_FLAT __attribute__((always_inline))  // of a lambda

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

// The larger of a and the bound; NaN stays. And the smaller.
DEAL_INLINE float at_least(float bound, float a) { return a < bound ? bound : a; }
DEAL_INLINE double at_least(double bound, double a) { return a < bound ? bound : a; }
DEAL_INLINE float at_most(float bound, float a) { return a > bound ? bound : a; }
DEAL_INLINE double at_most(double bound, double a) { return a > bound ? bound : a; }

DEAL_INLINE float absolute(float a) { return fabsf(a); }
DEAL_INLINE double absolute(double a) { return fabs(a); }
DEAL_INLINE float exponential2(float z) { return exp2f(z); }
DEAL_INLINE double exponential2(double z) { return exp2(z); }

}  // namespace deal
