// Transposes a square of values: as many vectors as a vector has lanes.
#pragma once
#include "../common/simd.h"

namespace deal {
namespace DEAL_ISA {
namespace {

template <int... i>
struct Indices {};
template <int n, int... i>
struct IndicesUpTo : IndicesUpTo<n - 1, n - 1, i...> {};
template <int... i>
struct IndicesUpTo<0, i...> {
  using type = Indices<i...>;
};

#if defined(__clang__)
#define DEAL_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define DEAL_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vector_u){__VA_ARGS__})
#endif

// Exchanges the lanes of a whose number has the bit `step` with the lanes of b whose number has not.
template <int step, int... i>
DEAL_INLINE void exchange(Pack<float>& a, Pack<float>& b, Indices<i...>) {
  constexpr int lanes = sizeof...(i);
  const vector_f low = DEAL_SHUFFLE(a.v, b.v, (i & step ? lanes + i - step : i)...);
  b.v = DEAL_SHUFFLE(a.v, b.v, (i & step ? lanes + i : i + step)...);
  a.v = low;
}

// A vector of every second value from p on.
template <int... i>
DEAL_INLINE Pack<float> every_second(const float* p, Indices<i...>) {
  constexpr int lanes = sizeof...(i);
  return {DEAL_SHUFFLE(load(p).v, load(p + lanes - 1).v, (2 * i < lanes ? 2 * i : 2 * i + 1)...)};
}
DEAL_INLINE Pack<float> every_second(const float* p) {
  return every_second(p, IndicesUpTo<Pack<float>::lanes>::type());
}
#undef DEAL_SHUFFLE

template <int step, int lanes>
DEAL_INLINE void transpose(Pack<float> (&rows)[lanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i)
    if (!(i & step)) exchange<step>(rows[i], rows[i + step], typename IndicesUpTo<lanes>::type());
  if constexpr (step > 1) transpose<step / 2>(rows);
}

DEAL_INLINE void transpose(Pack<float> (&rows)[Pack<float>::lanes]) { transpose<Pack<float>::lanes / 2>(rows); }

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
