// The contribution of a few tiles to the gradient of the weights, at one frequency.
#pragma once
#include "product.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kChannels = 4;  // rows of a block of the result

// Adds scale * (the sum over tiles of conj(x) * g) to planes [2, in, out], with three real products per complex one.
// With x = (xr, xi), g = (gr, gi) and p = xr * (gr + gi), the real part is p - (xr - xi) * gi, the imaginary p - (xr +
// xi) * gr.
template <int rows>
void add_correlation(const Tiles& x, const float* differences, const float* sums, const Tiles& g, const float* g_sums,
                     int count, float scale, float* to, int64_t plane, int64_t out) {
  float both[rows * kWide], part[rows * kWide];
  for (int64_t column = 0; column < out; column += kWide) {
    const auto sum = [&](const float* numbers, int64_t next, const float* b, int64_t b_next) DEAL_FLAT {
      return Factors{numbers, 1, next, b + column, b_next, 0, count, 0, 0};
    };
    const auto add = [&](float* target) DEAL_FLAT {
      for (int i = 0; i < rows; ++i)
        for (int k = 0; k < kWide; k += kWide / 2)
          store(target + i * out + k, load(target + i * out + k) + load(part + i * kWide + k) * scale);
    };
    product<rows>(sum(x.at, x.apart, g_sums, g.plane), both, kWide);
    product<rows>(sum(differences, x.plane, g.at + g.plane, g.apart), part, kWide, both, -1);
    add(to + column);
    product<rows>(sum(sums, x.plane, g.at, g.apart), part, kWide, both, -1);
    add(to + plane + column);
  }
}

int64_t add_correlation_floats(int count, const Halves& in, const Halves& out) {
  return count * (2 * in.both() + out.both());
}

void add_correlation(const Tiles& x, const Tiles& g, int count, const Halves& in, float scale, float* to,
                     float* scratch) {
  float *const differences = scratch, *const sums = scratch + count * x.plane, *const g_sums = sums + count * x.plane;
  x.mix(count, -1, differences);
  x.mix(count, 1, sums);
  g.mix(count, 1, g_sums);
  const int64_t out = g.plane, plane = (in.first + in.second) * out;
  for (int half = 0; half < 2; ++half) {
    const int64_t end = half ? in.padded + in.second : in.first;
    int64_t c = half ? in.padded : 0;
    const auto some = [&](auto add, int rows) DEAL_FLAT {
      for (; c + rows <= end; c += rows, to += rows * out)
        add({x.at + c, x.apart, x.plane}, differences + c, sums + c, g, g_sums, count, scale, to, plane, out);
    };
    some(add_correlation<kChannels>, kChannels);
    some(add_correlation<1>, 1);
  }
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
