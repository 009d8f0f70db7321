// A tensor of channels, cut into spans. A thread takes one span at a time: rows of one channel or, where inner == 1,
// rows with one element of each channel. A span is small enough to be read twice from the nearest cache.
#pragma once
#include "../../types.h"
#include "../common/dtype.h"
#include "../common/parallel.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int64_t kSpan = 4096;     // elements of one channel in a span
constexpr int64_t kSpanRows = 64;   // rows of a span where inner == 1
constexpr int64_t kElementsWorthAThread = 32768;

struct Span {
  int64_t x, dense;     // offset of the first element, in x and in a tensor that is contiguous in time
  int64_t rows, stride;
  int64_t length;       // length of a row
  int64_t channel;      // channel of the first element
};

// Cuts a tensor into spans: [steps][outer][channels][inner] -> rows of the outer axis, parts of the inner one.
class Spans {
 public:
  explicit Spans(const TdbnInput& a)
      : a_(a),
        columns_(a.inner == 1),
        stride_(a.channels * a.inner),
        outer_(a.neurons / stride_),
        length_(columns_ ? a.channels : a.inner < kSpan ? a.inner : kSpan),
        rows_(at_most(outer_, columns_ ? kSpanRows : kSpan / length_)),
        row_groups_((outer_ - 1) / rows_ + 1),
        parts_(columns_ ? 1 : (a.inner - 1) / length_ + 1),
        channels_(columns_ ? 1 : a.channels) {}

  int64_t count() const { return a_.steps * row_groups_ * channels_ * parts_; }
  bool columns() const { return columns_; }

  Span operator[](int64_t i) const {
    const int64_t part = i % parts_ * length_;
    i /= parts_;
    const int64_t channel = i % channels_;
    i /= channels_;
    const int64_t row = i % row_groups_ * rows_, step = i / row_groups_;
    const int64_t place = row * stride_ + channel * a_.inner + part;
    const int64_t length = columns_ ? length_ : at_most(length_, a_.inner - part);
    return {step * a_.time_stride + place,
            step * a_.neurons + place,
            at_most(rows_, outer_ - row),
            stride_,
            length,
            channel};
  }

 private:
  static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

  const TdbnInput& a_;
  bool columns_;
  int64_t stride_, outer_, length_, rows_, row_groups_, parts_, channels_;
};

// Calls body(span, thread) for all spans.
template <class Body>
void each_span(const TdbnInput& a, int threads, const Body& body) {
  const Spans spans(a);
  const int useful = useful_threads(a.steps * a.neurons, kElementsWorthAThread, threads);
  parallel_for(spans.count(), 1, useful, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) body(spans[i], thread);
  });
}

template <class T>
using Values = Pack<compute_t<T>>;

// Loads a vector, or the rest of a row; lanes past the end of the row are zero.
template <class T>
DEAL_INLINE Values<T> load_some(const T* p, int64_t count) {
  if (count >= Values<T>::lanes) return load(p);
  T some[Values<T>::lanes] = {};
  __builtin_memcpy(some, p, sizeof(T) * size_t(count));
  return load(some);
}

// The values of channels: one channel for all lanes, or consecutive channels from `at` on, one per lane.
template <bool columns, class S>
DEAL_INLINE Pack<S> values(const void* of, int64_t channel, int64_t at, int64_t count) {
  const S* const p = static_cast<const S*>(of);
  return columns ? load_some(p + at, count) : Pack<S>{} + p[channel];
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
