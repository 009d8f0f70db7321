// SIMD vectors of the greatest width that the compiler flags allow. Kernel files are compiled once per instruction set,
// each time into another namespace, and must define nothing outside of it. So they use no standard-library templates:
// the linker would merge their instances across instruction sets, and could keep one this processor does not run.
#pragma once
#include <cstdint>

#include "../../math/platform.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define DEAL_ISA avx512
#define DEAL_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define DEAL_ISA avx2
#define DEAL_VECTOR_BYTES 32
#else
#define DEAL_ISA baseline
#define DEAL_VECTOR_BYTES 16
#endif

namespace deal {
namespace DEAL_ISA {

template <class T, int bytes = DEAL_VECTOR_BYTES>
struct VectorOf {
  typedef T type __attribute__((vector_size(bytes)));
};
template <class T>
using vector = typename VectorOf<T>::type;
using vector_f = vector<float>;
using vector_u = vector<uint32_t>;
using vector_h = VectorOf<uint16_t, DEAL_VECTOR_BYTES / 2>::type;  // with as many lanes as vector_f

// One vector, as a value type of the formulas in math/.
template <class S>
struct Pack {
  static constexpr int vectors = 1;
  static constexpr int lanes = DEAL_VECTOR_BYTES / int(sizeof(S));
  vector<S> v;
};
template <class S>
struct Mask {
  decltype(vector<S>{} < vector<S>{}) v;
};

}  // namespace DEAL_ISA

template <class S>
struct ScalarOf<DEAL_ISA::Pack<S>> {
  using type = S;
};

namespace DEAL_ISA {

#define DEAL_OPERATOR(Result, op)                                                      \
  template <class S>                                                                   \
  DEAL_INLINE Result<S> operator op(Pack<S> a, Pack<S> b) { return {a.v op b.v}; }     \
  template <class S>                                                                   \
  DEAL_INLINE Result<S> operator op(Pack<S> a, scalar_t<Pack<S>> b) { return {a.v op b}; } \
  template <class S>                                                                   \
  DEAL_INLINE Result<S> operator op(scalar_t<Pack<S>> a, Pack<S> b) { return {a op b.v}; }
DEAL_OPERATOR(Pack, +)
DEAL_OPERATOR(Pack, -)
DEAL_OPERATOR(Pack, *)
DEAL_OPERATOR(Pack, /)
DEAL_OPERATOR(Mask, <)
DEAL_OPERATOR(Mask, <=)
DEAL_OPERATOR(Mask, >)
DEAL_OPERATOR(Mask, >=)
#undef DEAL_OPERATOR

template <class S>
DEAL_INLINE Mask<S> operator&(Mask<S> a, Mask<S> b) {
  return {a.v & b.v};
}
template <class S>
DEAL_INLINE Mask<S> operator|(Mask<S> a, Mask<S> b) {
  return {a.v | b.v};
}
template <class S>
DEAL_INLINE Mask<S> operator!(Mask<S> a) {
  return {~a.v};
}
template <class S>
DEAL_INLINE Pack<S> operator-(Pack<S> a) {
  return {-a.v};
}
template <class S>
DEAL_INLINE Pack<S> select(Mask<S> mask, Pack<S> yes, Pack<S> no) {
  return {mask.v ? yes.v : no.v};
}
template <class S>
DEAL_INLINE Pack<S> select(Mask<S> mask, scalar_t<Pack<S>> yes, scalar_t<Pack<S>> no) {
  return {mask.v ? yes - vector<S>{} : no - vector<S>{}};
}

DEAL_INLINE Pack<float> absolute(Pack<float> a) { return {(vector_f)((vector_u)a.v & 0x7fffffffu)}; }
DEAL_INLINE Pack<double> absolute(Pack<double> a) {
  return {(vector<double>)((vector<uint64_t>)a.v & 0x7fffffffffffffffu)};
}

// a * b + c, rounded once. A processor without the instruction calls the C library for each lane.
DEAL_INLINE Pack<float> fused(Pack<float> a, Pack<float> b, Pack<float> c) {
#if defined(__AVX512F__)
  return {(vector_f)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v)};
#elif defined(__AVX2__)
  return {(vector_f)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v)};
#else
  for (int i = 0; i < Pack<float>::lanes; ++i) c.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return c;
#endif
}
DEAL_INLINE Pack<double> fused(Pack<double> a, Pack<double> b, Pack<double> c) {
#if defined(__AVX512F__)
  return {(vector<double>)_mm512_fmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)c.v)};
#elif defined(__AVX2__)
  return {(vector<double>)_mm256_fmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)c.v)};
#else
  for (int i = 0; i < Pack<double>::lanes; ++i) c.v[i] = __builtin_fma(a.v[i], b.v[i], c.v[i]);
  return c;
#endif
}
template <class S>
DEAL_INLINE Pack<S> fused(S a, Pack<S> b, Pack<S> c) {
  return fused(Pack<S>{a - vector<S>{}}, b, c);
}

// The larger and the smaller of a and the bound; NaN stays NaN. Compilers do not find the single instruction.
DEAL_INLINE Pack<float> at_least(float bound, Pack<float> a) {
  const vector_f all = bound - vector_f{};
#if defined(__AVX512F__)
  return {(vector_f)_mm512_max_ps((__m512)all, (__m512)a.v)};
#elif defined(__AVX2__)
  return {(vector_f)_mm256_max_ps((__m256)all, (__m256)a.v)};
#else
  return {all > a.v ? all : a.v};
#endif
}
DEAL_INLINE Pack<float> at_most(float bound, Pack<float> a) {
  const vector_f all = bound - vector_f{};
#if defined(__AVX512F__)
  return {(vector_f)_mm512_min_ps((__m512)all, (__m512)a.v)};
#elif defined(__AVX2__)
  return {(vector_f)_mm256_min_ps((__m256)all, (__m256)a.v)};
#else
  return {all < a.v ? all : a.v};
#endif
}
DEAL_INLINE Pack<double> at_least(double bound, Pack<double> a) {
  const vector<double> all = bound - vector<double>{};
  return {all > a.v ? all : a.v};
}
DEAL_INLINE Pack<double> at_most(double bound, Pack<double> a) {
  const vector<double> all = bound - vector<double>{};
  return {all < a.v ? all : a.v};
}

// a * 2^n, where `shifted` is n + 1.5 * 2^23 for an integer n.
DEAL_INLINE Pack<float> scaled(Pack<float> a, Pack<float> shifted) {
  return {(vector_f)((vector_u)a.v + ((vector_u)shifted.v << 23))};
}

// 2^z for z <= 0: z = n + f with an integer n and |f| <= 1/2, and a minimax polynomial of degree 5 in f (error 1e-7).
// Below z = -126 the result stays near 1e-38.
template <class V>
DEAL_INLINE V exponential2(const V& z) {
  constexpr float magic = 12582912.0f;
  const V clamped = at_least(-126.0f, z);
  const V shifted = clamped + magic;
  const V f = clamped - (shifted - magic);
  const V f2 = f * f;
  const V high = 9.6715129912e-3f + 1.3264727313e-3f * f;
  const V middle = 2.4022242427e-1f + 5.5507335812e-2f * f;
  const V low = 1.0f + 6.9314700365e-1f * f;
  return scaled(low + f2 * (middle + f2 * high), shifted);
}

DEAL_INLINE Pack<double> exponential2(Pack<double> z) {
  for (int i = 0; i < Pack<double>::lanes; ++i) z.v[i] = __builtin_exp2(z.v[i]);
  return z;
}

// Storage types. Arithmetic on values of type T is done in compute_t<T>.
struct Half {
  uint16_t bits;
};
struct BFloat {
  uint16_t bits;
};
template <class T>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class T>
using compute_t = typename ComputeOf<T>::type;

DEAL_INLINE vector_f widen(vector_h raw, BFloat*) { return (vector_f)(__builtin_convertvector(raw, vector_u) << 16); }

// Rounds to nearest, ties to even; NaN becomes the quiet NaN that torch writes.
DEAL_INLINE vector_h narrow(vector_f a, BFloat*) {
  const vector_u bits = (vector_u)a;
  const vector_u rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const vector_u quiet_nan = vector_u{} + 0x7fc0u;
  return __builtin_convertvector(a == a ? rounded : quiet_nan, vector_h);
}

#if defined(__AVX512F__)
DEAL_INLINE vector_f widen(vector_h raw, Half*) { return (vector_f)_mm512_cvtph_ps((__m256i)raw); }
DEAL_INLINE vector_h narrow(vector_f a, Half*) {
  return (vector_h)_mm512_cvtps_ph((__m512)a, _MM_FROUND_TO_NEAREST_INT);
}
#elif defined(__F16C__)
DEAL_INLINE vector_f widen(vector_h raw, Half*) { return (vector_f)_mm256_cvtph_ps((__m128i)raw); }
DEAL_INLINE vector_h narrow(vector_f a, Half*) {
  return (vector_h)_mm256_cvtps_ph((__m256)a, _MM_FROUND_TO_NEAREST_INT);
}
#else
DEAL_INLINE vector_f widen(vector_h raw, Half*) {
  const vector_u bits = __builtin_convertvector(raw, vector_u);
  const vector_u magnitude = (bits & 0x7fffu) << 13;
  const vector_f rescaled =
      (vector_f)magnitude * 0x1p112f;  // changes the exponent bias from 15 to 127, also for subnormals
  const vector_u special = magnitude | 0x7f800000u;
  const vector_u value = magnitude >= 0x0f800000u ? special : (vector_u)rescaled;
  return (vector_f)(value | ((bits & 0x8000u) << 16));
}

DEAL_INLINE vector_h narrow(vector_f a, Half*) {
  const vector_u bits = (vector_u)a;
  const vector_u sign = (bits >> 16) & 0x8000u;
  const vector_u magnitude = bits & 0x7fffffffu;
  const vector_u normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Below 2^-14, adding 0.5 rounds to the spacing of the subnormals, 2^-24.
  const vector_u subnormal = (vector_u)((vector_f)magnitude + 0.5f) - 0x3f000000u;
  const vector_u finite = magnitude < 0x38800000u ? subnormal : normal;
  const vector_u infinity = vector_u{} + 0x7c00u;
  const vector_u nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  const vector_u special = magnitude > 0x7f800000u ? nan : infinity;
  const vector_u value = magnitude >= 0x477ff000u ? special : finite;
  return __builtin_convertvector(value | sign, vector_h);
}
#endif

template <class S>
DEAL_INLINE Pack<S> load(const S* p) {
  Pack<S> a;
  __builtin_memcpy(&a.v, p, sizeof a.v);
  return a;
}
template <class T>
DEAL_INLINE Pack<float> load_half(const T* p) {
  vector_h raw;
  __builtin_memcpy(&raw, p, sizeof raw);
  return {widen(raw, (T*)nullptr)};
}
DEAL_INLINE Pack<float> load(const Half* p) { return load_half(p); }
DEAL_INLINE Pack<float> load(const BFloat* p) { return load_half(p); }

template <class S>
DEAL_INLINE vector<S> as_stored(Pack<S> a, S*) {
  return a.v;
}
DEAL_INLINE vector_h as_stored(Pack<float> a, Half* p) { return narrow(a.v, p); }
DEAL_INLINE vector_h as_stored(Pack<float> a, BFloat* p) { return narrow(a.v, p); }

template <class T, class S>
DEAL_INLINE void store(T* p, Pack<S> a) {
  const auto raw = as_stored(a, p);
  __builtin_memcpy(p, &raw, sizeof raw);
}

// The sum of the lanes, in order.
template <class S>
DEAL_INLINE double sum(Pack<S> a) {
  double total = 0;
  for (int i = 0; i < Pack<S>::lanes; ++i) total += double(a.v[i]);
  return total;
}

// The sum of a row: by lane, then over the lanes.
template <class T>
DEAL_INLINE double sum(const T* row, int count) {
  Pack<T> total{};
  int i = 0;
  for (; i + Pack<T>::lanes <= count; i += Pack<T>::lanes) total = total + load(row + i);
  double all = sum(total);
  for (; i < count; ++i) all += double(row[i]);
  return all;
}

// A streaming store bypasses the caches, which saves reading the cache line that it overwrites. The address must be
// aligned to the number of bytes stored.
template <class T, class S>
DEAL_INLINE void stream(T* p, Pack<S> a) {
  const auto raw = as_stored(a, p);
#if defined(__AVX512F__)
  if constexpr (sizeof raw == 64) return _mm512_stream_si512((__m512i*)p, (__m512i)raw);
#endif
#if defined(__AVX2__)
  if constexpr (sizeof raw == 32) return _mm256_stream_si256((__m256i*)p, (__m256i)raw);
#endif
#if defined(__SSE2__)
  if constexpr (sizeof raw == 16) return _mm_stream_si128((__m128i*)p, (__m128i)raw);
#endif
  __builtin_memcpy(p, &raw, sizeof raw);
}

// Results larger than this are evicted from the caches before they are read.
constexpr int64_t kStreamBytes = int64_t(8) << 20;

// A result is streamed if it is too large for the caches and its vectors are aligned.
DEAL_INLINE bool streams(const void* result, int64_t row_bytes, int64_t rows) {
  return rows * row_bytes >= kStreamBytes && row_bytes % 64 == 0 && reinterpret_cast<uintptr_t>(result) % 64 == 0;
}

DEAL_INLINE void stream_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// One bit per lane, lane 0 lowest: 1 if the lane is not zero.
template <class S>
DEAL_INLINE uint32_t lane_bits(Pack<S> a) {
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == 4) return _mm512_cmp_ps_mask((__m512)a.v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
  else return _mm512_cmp_pd_mask((__m512d)a.v, _mm512_setzero_pd(), _CMP_NEQ_UQ);
#else
  const auto mask = a.v != 0;
#if defined(__AVX2__)
  if constexpr (sizeof(S) == 4) return uint32_t(_mm256_movemask_ps((__m256)mask));
  else return uint32_t(_mm256_movemask_pd((__m256d)mask));
#elif defined(__SSE2__)
  if constexpr (sizeof(S) == 4) return uint32_t(_mm_movemask_ps((__m128)mask));
  else return uint32_t(_mm_movemask_pd((__m128d)mask));
#else
  uint32_t bits = 0;
  for (int i = 0; i < Pack<S>::lanes; ++i) bits |= uint32_t(mask[i] != 0) << i;
  return bits;
#endif
#endif
}

}  // namespace DEAL_ISA
}  // namespace deal
