// Matrix products at one frequency. A complex product takes three real ones.
#pragma once
#include <type_traits>

#include "../common/unrolled.h"
#include "tile.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kWide = 2 * Pack<float>::lanes;  // columns of a block of the result
constexpr int kTiles = 6;                      // rows of a block of the result, where rows are tiles

// The two factors of a product: a, whose rows are `row` apart and whose columns `next`, and rows of b. After `first`
// columns of a, `left_out` ones are skipped and `second` ones follow.
struct Factors {
  const float* a;
  int64_t row, next;
  const float* b;
  int64_t b_next, b_ahead;  // b_ahead: what to prefetch
  int64_t first, left_out, second;
};

// Computes a block of the result, whose rows are `row` apart: the product, or base + sign * the product.
template <int rows>
__attribute__((noinline)) void product(const Factors& s, float* to, int64_t row, const float* base = nullptr,
                                       float sign = 0) {
  vector_f left[rows] = {}, right[rows] = {};
  const float *a = s.a, *b = s.b;
  const int64_t a_row = s.row, a_next = s.next, b_next = s.b_next, b_ahead = s.b_ahead;
  int64_t count = s.first;
  for (int half = 0; half < 2; ++half) {
    for (; count > 0; --count, a += a_next, b += b_next) {
      const vector_f one = load(b).v, other = load(b + kWide / 2).v;
      __builtin_prefetch(b + b_ahead);
      unrolled<rows>([&](int i) DEAL_FLAT {
        const vector_f factor = a[i * a_row] - vector_f{};
        left[i] += factor * one;
        right[i] += factor * other;
      });
    }
    a += s.left_out * s.next;
    count = s.second;
  }
  unrolled<rows>([&](int i) DEAL_FLAT {
    if (base) {
      left[i] = load(base + i * row).v + sign * left[i];
      right[i] = load(base + i * row + kWide / 2).v + sign * right[i];
    }
    store(to + i * row, Pack<float>{left[i]});
    store(to + i * row + kWide / 2, Pack<float>{right[i]});
  });
}

// The spectra of a few tiles at one frequency.
struct Tiles {
  float* at;
  int64_t apart;  // distance of two tiles
  int64_t plane;  // size of a plane

  // Writes re + sign * im of each tile, contiguously.
  void mix(int count, float sign, float* to) const {
    for (int t = 0; t < count; ++t)
      for (int64_t i = 0; i < plane; i += kWide / 2)
        store(to + t * plane + i, load(at + t * apart + i) + load(at + t * apart + plane + i) * sign);
  }
};

// Replaces the spectra of the tiles by their products with the weights: planes [2, in] become [2, out], with weights in
// planes [3, in, out].
template <int rows>
void apply_to_block(const Tiles& x, const float* sums, const Halves& in, const float* weight, int64_t out,
                   float* result) {
  const int64_t channels = in.first + in.second, plane = channels * out;
  const auto sum = [&](const float* numbers, int64_t apart, const float* b) DEAL_FLAT {
    return Factors{numbers, apart, 1, b, out, 3 * plane, in.first, in.padded - in.first, in.second};
  };
  for (int64_t column = 0; column < out; column += kWide) {
    float *const re = result + column, *const im = re + out;
    const float* const w = weight + column;
    product<rows>(sum(sums, x.plane, w + 2 * plane), re, 2 * out);
    product<rows>(sum(x.at, x.apart, w), im, 2 * out, re, 1);
    product<rows>(sum(x.at + x.plane, x.apart, w + plane), re, 2 * out, re, -1);
  }
  for (int i = 0; i < rows; ++i)
    __builtin_memcpy(x.at + i * x.apart, result + i * 2 * out, sizeof(float) * size_t(2 * out));
}

// The same for real spectra and weights [in, out].
template <int rows>
void apply_real_to_block(const Tiles& x, const Halves& in, const float* weight, int64_t out, float* result) {
  const int64_t left_out = in.padded - in.first;
  for (int64_t column = 0; column < out; column += kWide) {
    const Factors sum = {x.at,     x.apart,  1,        weight + column, out, (in.first + in.second) * out,
                         in.first, left_out, in.second};
    product<rows>(sum, result + column, out);
  }
  for (int i = 0; i < rows; ++i)
    __builtin_memcpy(x.at + i * x.apart, result + i * out, sizeof(float) * size_t(out));
}

// Calls some(rows, first) for blocks of tiles, the largest first.
template <class Some>
DEAL_INLINE void in_blocks(int count, const Some& some) {
  int i = 0;
  for (; i + kTiles <= count; i += kTiles) some(std::integral_constant<int, kTiles>(), i);
  for (; i + 2 <= count; i += 2) some(std::integral_constant<int, 2>(), i);
  for (; i < count; ++i) some(std::integral_constant<int, 1>(), i);
}

int64_t apply_weights_floats(int count, const Halves& in, int64_t out) { return count * in.both() + kTiles * 2 * out; }

void apply_weights(const Tiles& x, int count, const Halves& in, const float* weight, int64_t out, float* scratch) {
  float* const result = scratch + count * x.plane;
  x.mix(count, 1, scratch);
  in_blocks(count, [&](auto rows, int i) {
    apply_to_block<rows>({x.at + i * x.apart, x.apart, x.plane}, scratch + i * x.plane, in, weight, out, result);
  });
}

inline void apply_real_weights(const Tiles& x, int count, const Halves& in, const float* weight, int64_t out,
                               float* scratch) {
  in_blocks(count, [&](auto rows, int i) {
    apply_real_to_block<rows>({x.at + i * x.apart, x.apart, x.plane}, in, weight, out, scratch);
  });
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
