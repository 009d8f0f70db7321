// The gradients of a convolution's bias and residual.
#pragma once
#include "../../types.h"
#include "../common/parallel.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// A compensated sum: it also sums the rounding errors.
template <class V>
struct CompensatedSum {
  V sum{}, lost{};

  DEAL_INLINE void add(V a) {
    const V total = sum + a, added = total - sum;
    lost = lost + ((sum - (total - added)) + (a - added));
    sum = total;
  }
};

DEAL_INLINE double value(const CompensatedSum<float>& s) { return double(s.sum) + double(s.lost); }
DEAL_INLINE double value(const CompensatedSum<Pack<float>>& s, int lane) {
  return double(s.sum.v[lane]) + double(s.lost.v[lane]);
}

class BiasGradient {
 public:
  BiasGradient(const ConvBackward& a, int threads)
      : a_(a), threads_(threads), height_(a.out_height()), width_(a.out_width()) {}

  void run() const {
    const int64_t parts = (height_ + kRows - 1) / kRows, items = a_.batch * parts;
    const Buffer<double> sums(items * a_.out_channels, Fill::zeros);
    parallel_for(items, 1, threads_, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) add_part(i / parts, i % parts * kRows, sums.get() + i * a_.out_channels);
    });
    for (int64_t c = 0; a_.grad_bias && c < a_.out_channels; ++c) {
      double total = 0;
      for (int64_t i = 0; i < items; ++i) total += sums[i * a_.out_channels + c];
      a_.grad_bias[c] = float(total);
    }
  }

 private:
  static constexpr int64_t kRows = 16;  // rows of a partial sum
  static constexpr int64_t kFew = 64;   // pixels that stay in the first-level cache
  static constexpr int kColumns = 16;   // parallel sums of a row, the same number for every vector width
  static constexpr int kLanes = Pack<float>::lanes;

  static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

  void add_part(int64_t image, int64_t top, double* sums) const {
    const int64_t channels = a_.out_channels, pixels = least(height_ - top, kRows) * width_;
    const int64_t first = image * channels * height_ * width_;
    if (a_.channels_last) {
      for (int64_t p = 0; p < pixels; p += kFew)
        add_pixels(first + (top * width_ + p) * channels, least(pixels - p, kFew), sums);
    } else {
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t p = 0; p < pixels; p += kFew * kColumns)
          sums[c] += row_sum(first + (c * height_ + top) * width_ + p, least(pixels - p, kFew * kColumns));
    }
  }

  void add_pixels(int64_t at, int64_t pixels, double* sums) const {
    const int64_t channels = a_.out_channels;
    int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) {
      CompensatedSum<Pack<float>> total;
      for (int64_t p = 0; p < pixels; ++p) total.add(some(at + p * channels + c));
      for (int i = 0; i < kLanes; ++i) sums[c + i] += value(total, i);
    }
    for (; c < channels; ++c) {
      CompensatedSum<float> total;
      for (int64_t p = 0; p < pixels; ++p) total.add(one(at + p * channels + c));
      sums[c] += value(total);
    }
  }

  double row_sum(int64_t at, int64_t count) const {
    constexpr int vectors = kColumns / kLanes;
    CompensatedSum<Pack<float>> totals[vectors];
    int64_t i = 0;
    for (; i + kColumns <= count; i += kColumns)
      for (int k = 0; k < vectors; ++k) totals[k].add(some(at + i + k * kLanes));
    float rest[kColumns] = {};
    for (int k = 0; i < count; ++i, ++k) rest[k] = one(at + i);
    double sum = 0;
    for (int k = 0; k < vectors; ++k) {
      totals[k].add(load(rest + k * kLanes));
      for (int lane = 0; lane < kLanes; ++lane) sum += value(totals[k], lane);
    }
    return sum;
  }

  // The gradient before the activation.
  DEAL_INLINE Pack<float> some(int64_t at) const {
    Pack<float> grad = load(a_.grad + at);
    if (a_.out) grad = select(load(a_.out + at) > 0.0f, grad, Pack<float>{});
    if (a_.grad_residual) store(a_.grad_residual + at, grad);
    return grad;
  }
  DEAL_INLINE float one(int64_t at) const {
    const float grad = !a_.out || a_.out[at] > 0 ? a_.grad[at] : 0.0f;
    if (a_.grad_residual) a_.grad_residual[at] = grad;
    return grad;
  }

  const ConvBackward& a_;
  const int threads_;
  const int64_t height_, width_;
};

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
