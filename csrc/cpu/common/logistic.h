// 1 / (1 + exp(-a)) with the bits of torch.sigmoid on a CPU, whose exponential is that of SLEEF with an error of at most
// one unit in the last place: the argument less a multiple of log 2 in two parts, and a polynomial in the remainder, with
// fused products.
#pragma once
#include "pair.h"

namespace deal {
namespace DEAL_ISA {

DEAL_INLINE Pack<float> fused(Pack<float> a, float b, Pack<float> c) { return fused(a, Pack<float>{} + b, c); }
DEAL_INLINE Pack<float> fused(Pack<float> a, Pack<float> b, float c) { return fused(a, b, Pack<float>{} + c); }

// a * 2^n, for `shifted` = n + 1.5 * 2^23. In two factors: 2^n itself may be out of range.
DEAL_INLINE Pack<float> scaled_twice(Pack<float> a, Pack<float> shifted) {
  using vector_i = vector<int32_t>;
  const vector_i n = (vector_i)shifted.v - 0x4b400000;
  const vector_i half = n >> 1;
  const vector_f one = (vector_f)((half + 127) << 23), other = (vector_f)((n - half + 127) << 23);
  return {(a.v * one) * other};
}

DEAL_INLINE Pack<float> logistic(Pack<float> a) {
  constexpr float log2_e = 1.442695040888963407f, magic = 12582912.0f;
  const Pack<float> z = 0.0f - a;
  const Pack<float> shifted = z * log2_e + magic;
  const Pack<float> n = shifted - magic;
  const Pack<float> f = fused(n, -1.428606765330187045e-06f, fused(n, -0.693145751953125f, z));
  Pack<float> p = fused(Pack<float>{} + 0.000198527617612853646f, f, 0.00139304355252534151f);
  p = fused(p, f, 0.00833336077630519867f);
  p = fused(p, f, 0.0416664853692054749f);
  p = fused(p, f, 0.166666671633720398f);
  p = fused(p, f, 0.5f);
  Pack<float> e = scaled_twice(1.0f + fused(f * f, p, f), shifted);
  e = select(z < -104.0f, Pack<float>{}, e);
  e = select(z > 104.0f, Pack<float>{} + __builtin_inff(), e);
  return 1.0f / (1.0f + e);
}

DEAL_INLINE Pack<double> logistic(Pack<double> a) {
  for (int i = 0; i < Pack<double>::lanes; ++i) a.v[i] = 1 / (1 + __builtin_exp(-a.v[i]));
  return a;
}

template <class V>
DEAL_INLINE Pair<V> logistic(const Pair<V>& a) {
  return {logistic(a.a), logistic(a.b)};
}

}  // namespace DEAL_ISA
}  // namespace deal
