// A pair of vectors, or a pair of pairs, as one value. Each operation becomes two independent instructions, so that the
// processor can execute one while it waits for the other.
#pragma once
#include "simd.h"

namespace deal {
namespace DEAL_ISA {

template <class V>
struct Pair {
  using Part = V;
  static constexpr int vectors = 2 * V::vectors;
  static constexpr int lanes = 2 * V::lanes;
  V a, b;
};

}  // namespace DEAL_ISA

template <class V>
struct ScalarOf<DEAL_ISA::Pair<V>> {
  using type = scalar_t<V>;
};

namespace DEAL_ISA {

#define DEAL_BOTH(expression_of_a, expression_of_b) \
  Pair<decltype(expression_of_a)> { expression_of_a, expression_of_b }
#define DEAL_OPERATOR(op)                                                    \
  template <class V>                                                         \
  DEAL_INLINE auto operator op(const Pair<V>& x, const Pair<V>& y) {       \
    return DEAL_BOTH(x.a op y.a, x.b op y.b);                                \
  }                                                                          \
  template <class V>                                                         \
  DEAL_INLINE auto operator op(const Pair<V>& x, scalar_t<Pair<V>> y) {    \
    return DEAL_BOTH(x.a op y, x.b op y);                                    \
  }                                                                          \
  template <class V>                                                         \
  DEAL_INLINE auto operator op(scalar_t<Pair<V>> x, const Pair<V>& y) {    \
    return DEAL_BOTH(x op y.a, x op y.b);                                    \
  }
DEAL_OPERATOR(+)
DEAL_OPERATOR(-)
DEAL_OPERATOR(*)
DEAL_OPERATOR(/)
DEAL_OPERATOR(<)
DEAL_OPERATOR(<=)
DEAL_OPERATOR(>)
DEAL_OPERATOR(>=)
#undef DEAL_OPERATOR

template <class V>
DEAL_INLINE Pair<V> operator-(const Pair<V>& x) {
  return {-x.a, -x.b};
}
template <class M, class V>
DEAL_INLINE Pair<V> select(const Pair<M>& mask, const Pair<V>& yes, const Pair<V>& no) {
  return {select(mask.a, yes.a, no.a), select(mask.b, yes.b, no.b)};
}
template <class M, class S>
DEAL_INLINE auto select(const Pair<M>& mask, S yes, S no) {
  return DEAL_BOTH(select(mask.a, yes, no), select(mask.b, yes, no));
}
template <class V>
DEAL_INLINE Pair<V> absolute(const Pair<V>& x) {
  return {absolute(x.a), absolute(x.b)};
}
template <class V>
DEAL_INLINE Pair<V> at_least(scalar_t<Pair<V>> bound, const Pair<V>& x) {
  return {at_least(bound, x.a), at_least(bound, x.b)};
}
template <class V>
DEAL_INLINE Pair<V> at_most(scalar_t<Pair<V>> bound, const Pair<V>& x) {
  return {at_most(bound, x.a), at_most(bound, x.b)};
}
template <class V>
DEAL_INLINE Pair<V> fused(const Pair<V>& a, const Pair<V>& b, const Pair<V>& c) {
  return {fused(a.a, b.a, c.a), fused(a.b, b.b, c.b)};
}
template <class V>
DEAL_INLINE Pair<V> fused(scalar_t<Pair<V>> a, const Pair<V>& b, const Pair<V>& c) {
  return {fused(a, b.a, c.a), fused(a, b.b, c.b)};
}
template <class V>
DEAL_INLINE Pair<V> scaled(const Pair<V>& x, const Pair<V>& shifted) {
  return {scaled(x.a, shifted.a), scaled(x.b, shifted.b)};
}
DEAL_INLINE Pair<Pack<double>> exponential2(const Pair<Pack<double>>& z) {
  return {exponential2(z.a), exponential2(z.b)};
}
DEAL_INLINE Pair<Pair<Pack<double>>> exponential2(const Pair<Pair<Pack<double>>>& z) {
  return {exponential2(z.a), exponential2(z.b)};
}
#undef DEAL_BOTH

template <class V, class T>
DEAL_INLINE V read(const T* p) {
  if constexpr (V::vectors == 1) return load(p);
  else return {read<typename V::Part>(p), read<typename V::Part>(p + V::Part::lanes)};
}
template <class T, class V>
DEAL_INLINE void store(T* p, const Pair<V>& x) {
  store(p, x.a), store(p + V::lanes, x.b);
}
template <class T, class V>
DEAL_INLINE void stream(T* p, const Pair<V>& x) {
  stream(p, x.a), stream(p + V::lanes, x.b);
}
// Prefetches all cache lines of V.
template <class V, class T>
DEAL_INLINE void prefetch(const T* p) {
#pragma GCC unroll 8
  for (int i = 0; i < V::lanes; i += 64 / int(sizeof(T))) __builtin_prefetch(p + i);
}
// The same number of values on every instruction set, so that sums have the same bits everywhere.
#if DEAL_VECTOR_BYTES == 64
template <class S>
using Wide = Pack<S>;
#elif DEAL_VECTOR_BYTES == 32
template <class S>
using Wide = Pair<Pack<S>>;
#else
template <class S>
using Wide = Pair<Pair<Pack<S>>>;
#endif

// Adds the lanes to a total, in order.
template <class S>
DEAL_INLINE void add_lanes(double& total, const Pack<S>& x) {
  for (int i = 0; i < Pack<S>::lanes; ++i) total += double(x.v[i]);
}
template <class V>
DEAL_INLINE void add_lanes(double& total, const Pair<V>& x) {
  add_lanes(total, x.a), add_lanes(total, x.b);
}

template <class V>
DEAL_INLINE uint64_t lane_bits(const Pair<V>& x) {
  return uint64_t(lane_bits(x.a)) | uint64_t(lane_bits(x.b)) << V::lanes;
}

}  // namespace DEAL_ISA
}  // namespace deal
