// Products of matrices at one frequency: a complex one is three real ones.
#pragma once
#include "conv_tile.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kWide = 2 * Pack<float>::lanes;  // columns of a block of a result
constexpr int kTall = 4;                       // and rows

template <int i, int end, class Body>
DEAL_INLINE void unrolled(const Body& body) {
  if constexpr (i < end) {
    body(i);
    unrolled<i + 1, end>(body);
  }
}

template <int rows>
struct Block {
  vector_f left[rows], right[rows];
};

template <int rows>
DEAL_INLINE Block<rows> operator+(const Block<rows>& a, const Block<rows>& b) {
  Block<rows> sum;
  unrolled<0, rows>([&](int i) DEAL_FLAT { sum.left[i] = a.left[i] + b.left[i], sum.right[i] = a.right[i] + b.right[i]; });
  return sum;
}
template <int rows>
DEAL_INLINE Block<rows> operator-(const Block<rows>& a, const Block<rows>& b) {
  Block<rows> sum;
  unrolled<0, rows>([&](int i) DEAL_FLAT { sum.left[i] = a.left[i] - b.left[i], sum.right[i] = a.right[i] - b.right[i]; });
  return sum;
}

// A factor in memory: a number `row` apart for the rows of a result, `next` for the products that are summed up.
struct Factor {
  const float* at;
  int64_t row, next;
};

// Adds the sum of as many products as `count` says.
template <int rows>
DEAL_INLINE void multiply(Block<rows>& s, const Factor& f, const float* other, int64_t other_next, int64_t count) {
  const float* a = f.at;
  for (int64_t k = 0; k < count; ++k, a += f.next, other += other_next) {
    const vector_f left = load(other).v, right = load(other + kWide / 2).v;
    unrolled<0, rows>([&](int i) DEAL_FLAT {
      const vector_f factor = a[i * f.row] - vector_f{};
      s.left[i] += factor * left;
      s.right[i] += factor * right;
    });
  }
}

template <int rows>
DEAL_INLINE void write(float* to, int64_t row, const Block<rows>& block) {
  unrolled<0, rows>([&](int i) DEAL_FLAT {
    store(to + i * row, Pack<float>{block.left[i]});
    store(to + i * row + kWide / 2, Pack<float>{block.right[i]});
  });
}

template <int rows>
DEAL_INLINE void add(float* to, int64_t row, const Block<rows>& block, float scale) {
  unrolled<0, rows>([&](int i) DEAL_FLAT {
    store(to + i * row, load(to + i * row) + Pack<float>{block.left[i]} * scale);
    store(to + i * row + kWide / 2, load(to + i * row + kWide / 2) + Pack<float>{block.right[i]} * scale);
  });
}

// The spectra of a few tiles, at one frequency.
struct Tiles {
  float* at;
  int64_t apart;  // from one tile to the next
  int64_t plane;
};

// The sum over the input's channels of the tiles' plane k with the weights' plane k.
template <int rows>
DEAL_INLINE Block<rows> product(const Tiles& x, int k, const Halves& in, const float* weight, int64_t out) {
  Block<rows> sum = {};
  const float* const at = x.at + k * x.plane;
  const float* const w = weight + k * (in.first + in.second) * out;
  multiply(sum, {at, x.apart, 1}, w, out, in.first);
  multiply(sum, {at + in.padded, x.apart, 1}, w + in.first * out, out, in.second);
  return sum;
}

// Puts the product with the weights, planes [3, in, out], in the place of the tiles' spectra, planes [2, out]. There is
// room for the result of kTall tiles.
template <int rows>
void apply_weights(const Tiles& x, const Halves& in, const float* weight, int64_t out, float* result) {
  for (int64_t column = 0; column < out; column += kWide) {
    const Block<rows> both = product<rows>(x, 2, in, weight + column, out);
    write(result + column, 2 * out, both - product<rows>(x, 1, in, weight + column, out));
    write(result + out + column, 2 * out, both + product<rows>(x, 0, in, weight + column, out));
  }
  for (int i = 0; i < rows; ++i) __builtin_memcpy(x.at + i * x.apart, result + i * 2 * out, sizeof(float) * size_t(2 * out));
}

void apply_weights(const Tiles& x, int count, const Halves& in, const float* weight, int64_t out, float* result) {
  int i = 0;
  for (; i + kTall <= count; i += kTall) apply_weights<kTall>({x.at + i * x.apart, x.apart, x.plane}, in, weight, out, result);
  for (; i < count; ++i) apply_weights<1>({x.at + i * x.apart, x.apart, x.plane}, in, weight, out, result);
}

// Adds scale * the sum over tiles of conj(x) g to planes [2, in, out]. The third plane is r - i of x and r + i of g.
template <int rows>
void add_correlation(const Tiles& x, const Tiles& g, int count, int64_t from, float scale, float* sum, int64_t plane, int64_t out) {
  for (int64_t column = 0; column < out; column += kWide) {
    Block<rows> products[3] = {};
    for (int k = 0; k < 3; ++k)
      multiply(products[k], {x.at + k * x.plane + from, 1, x.apart}, g.at + k * g.plane + column, g.apart, count);
    add(sum + column, out, products[0] + products[1], scale);
    add(sum + plane + column, out, products[2] - products[0] + products[1], scale);
  }
}

void add_correlation(const Tiles& x, const Tiles& g, int count, const Halves& in, float scale, float* sum, int64_t out) {
  const int64_t plane = (in.first + in.second) * out;
  for (int half = 0; half < 2; ++half) {
    const int64_t channels = half ? in.second : in.first, padding = half ? in.padded : 0;
    int64_t c = 0;
    for (; c + kTall <= channels; c += kTall, sum += kTall * out) add_correlation<kTall>(x, g, count, padding + c, scale, sum, plane, out);
    for (; c < channels; ++c, sum += out) add_correlation<1>(x, g, count, padding + c, scale, sum, plane, out);
  }
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
