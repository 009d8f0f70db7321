// A thread takes one span at a time: rows of one channel, or, where channels lie side by side, rows
// with one element of each. A span is small enough to be read twice from the nearest cache.
#include "../types.h"

#include <cstdlib>

#include "../math/norm.h"
#include "channels.h"
#include "kernels.h"
#include "parallel.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int64_t kSpan = 4096;     // elements of one channel
constexpr int64_t kSpanRows = 64;   // rows of channels side by side
constexpr int64_t kElementsWorthAThread = 32768;

struct Span {
  int64_t x, dense;     // its first element, in x and in a tensor whose steps lie side by side
  int64_t rows, stride;
  int64_t length;       // of a row
  int64_t channel;      // of the first element
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
    return {step * a_.time_stride + place, step * a_.neurons + place, at_most(rows_, outer_ - row), stride_, length, channel};
  }

 private:
  static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

  const TdbnInput& a_;
  bool columns_;
  int64_t stride_, outer_, length_, rows_, row_groups_, parts_, channels_;
};

// Calls body(span, thread) for all of them.
template <class Body>
void each_span(const TdbnInput& a, int threads, const Body& body) {
  const Spans spans(a);
  const int64_t useful = a.steps * a.neurons / kElementsWorthAThread + 1;
  parallel_for(spans.count(), 1, useful < threads ? int(useful) : threads, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) body(spans[i], thread);
  });
}

template <class T>
using Values = Pack<compute_t<T>>;

// A vector, or what is left of a row; the lanes past its end are zero.
template <class T>
DEAL_INLINE Values<T> load_some(const T* p, int64_t count) {
  if (count >= Values<T>::lanes) return load(p);
  T some[Values<T>::lanes] = {};
  __builtin_memcpy(some, p, sizeof(T) * size_t(count));
  return load(some);
}

template <class T, class S>
DEAL_INLINE void store_some(T* p, Pack<S> a, int64_t count, bool streaming) {
  if (streaming) return stream(p, a);
  if (count >= Pack<S>::lanes) return store(p, a);
  T some[Pack<S>::lanes];
  store(some, a);
  __builtin_memcpy(p, some, sizeof(T) * size_t(count));
}

// Zero in the lanes past the end.
template <class S>
DEAL_INLINE Pack<S> only(Pack<S> a, int64_t count) {
  if (count >= Pack<S>::lanes) return a;
  for (int i = 0; i < Pack<S>::lanes; ++i)
    if (i >= count) a.v[i] = 0;
  return a;
}

// A channel's values from `at` on: of one channel for all lanes, or of one for each.
template <bool columns, class S>
DEAL_INLINE Pack<S> values(const void* of, int64_t channel, int64_t at, int64_t count) {
  const S* const p = static_cast<const S*>(of);
  return columns ? load_some(p + at, count) : Pack<S>{} + p[channel];
}

struct Moment {
  double count, mean, squares;  // the latter of the distances from the mean

  void add(double n, double m, double s) {
    const double all = count + n, distance = m - mean;
    mean += distance * (n / all);
    squares += s + distance * distance * (count * n / all);
    count = all;
  }
};

// Two readings of what the nearest cache holds: the mean, then the squares about it. Both are exact
// enough in the type of the values, because a span is short.
template <class T>
void add_row_moments(const Span& span, const T* x, Moment* moments) {
  using V = Values<T>;
  using S = compute_t<T>;
  V total{};
  const double n = double(span.rows * span.length);
  const auto each = [&](const auto& body) DEAL_FLAT {
    for (int64_t row = 0; row < span.rows; ++row)
      for (int64_t k = 0; k < span.length; k += V::lanes)
        body(load_some(x + row * span.stride + k, span.length - k), span.length - k);
  };
  each([&](V a, int64_t) DEAL_FLAT { total = total + a; });
  const S mean = S(sum(total) / n);
  V rest{}, squares{};
  each([&](V a, int64_t count) DEAL_FLAT {
    const V distance = only(a - mean, count);
    rest = rest + distance;
    squares = squares + distance * distance;
  });
  const double left = sum(rest);
  moments[span.channel].add(n, double(mean) + left / n, sum(squares) - left * left / n);
}

template <class T>
void add_column_moments(const Span& span, const T* x, Moment* moments) {
  using V = Values<T>;
  using S = compute_t<T>;
  for (int64_t k = 0; k < span.length; k += V::lanes) {
    const int64_t count = span.length - k;
    const S n = S(span.rows);
    V total{}, rest{}, squares{};
    for (int64_t row = 0; row < span.rows; ++row) total = total + load_some(x + row * span.stride + k, count);
    const V mean = total / n;
    for (int64_t row = 0; row < span.rows; ++row) {
      const V distance = load_some(x + row * span.stride + k, count) - mean;
      rest = rest + distance;
      squares = squares + distance * distance;
    }
    const V shifted = rest / n, about = squares - rest * shifted;
    for (int i = 0; i < V::lanes && i < count; ++i)
      moments[k + i].add(double(n), double(mean.v[i]) + double(shifted.v[i]), double(about.v[i]));
  }
}

template <class T>
void moments(const TdbnMoments& a, int threads) {
  using S = compute_t<T>;
  Moment* const all = static_cast<Moment*>(calloc(size_t(threads * a.channels), sizeof(Moment)));
  each_span(a, threads, [&](const Span& span, int thread) {
    const T* const x = static_cast<const T*>(a.x) + span.x;
    Moment* const mine = all + thread * a.channels;
    a.inner == 1 ? add_column_moments(span, x, mine) : add_row_moments(span, x, mine);
  });
  for (int64_t c = 0; c < a.channels; ++c) {
    Moment& total = all[c];
    for (int thread = 1; thread < threads; ++thread) {
      const Moment& part = all[thread * a.channels + c];
      if (part.count > 0) total.add(part.count, part.mean, part.squares);
    }
    static_cast<S*>(a.mean)[c] = S(total.mean);
    static_cast<S*>(a.variance)[c] = S(total.squares / total.count);
  }
  free(all);
}

// Writes of(place in the row, elements left, x, dense place) to every element.
template <bool columns, class T, class Of>
void write(const TdbnInput& a, void* result, bool streaming, int threads, const Of& of) {
  using V = Values<T>;
  each_span(a, threads, [&](const Span& span, int) {
    for (int64_t row = 0; row < span.rows; ++row) {
      const T* const x = static_cast<const T*>(a.x) + span.x + row * span.stride;
      const int64_t dense = span.dense + row * span.stride;
      T* const out = static_cast<T*>(result) + dense;
      for (int64_t k = 0; k < span.length; k += V::lanes) {
        const int64_t left = span.length - k;
        store_some(out + k, of(span.channel, k, left, load_some(x + k, left), dense + k), left, streaming);
      }
    }
    if (streaming) stream_fence();
  });
}

template <class T>
bool streams_rows(const TdbnInput& a, const void* result) {
  const int64_t row = a.inner == 1 ? a.channels : a.inner;
  return streams(result, row * int64_t(sizeof(T)), a.steps * a.neurons / row);
}

template <bool columns, class T>
void normalise(const TdbnNormalise& a, int threads) {
  using S = compute_t<T>;
  write<columns, T>(a, a.out, streams_rows<T>(a, a.out), threads,
                    [&](int64_t channel, int64_t k, int64_t left, Pack<S> x, int64_t) DEAL_FLAT {
                      const auto of = [&](const void* p) DEAL_FLAT { return values<columns, S>(p, channel, k, left); };
                      return normalised(x, of(a.mean), of(a.scale), of(a.shift));
                    });
}

template <bool columns, class T>
void gradient(const TdbnGradient& a, int threads) {
  using S = compute_t<T>;
  write<columns, T>(a, a.out, a.out != a.grad && streams_rows<T>(a, a.out), threads,
                    [&](int64_t channel, int64_t k, int64_t left, Pack<S> x, int64_t dense) DEAL_FLAT {
                      const auto of = [&](const void* p) DEAL_FLAT { return values<columns, S>(p, channel, k, left); };
                      const Pack<S> grad = load_some(static_cast<const T*>(a.grad) + dense, left);
                      return norm_gradient(grad, x, of(a.mean), of(a.direct), of(a.by_variance), of(a.by_mean));
                    });
}

template <class T>
void add_row_sums(const TdbnGradientSums& a, const Span& span, double* sums) {
  using V = Values<T>;
  const V mean = values<false, compute_t<T>>(a.mean, span.channel, 0, 0);
  V total{}, product{};
  for (int64_t row = 0; row < span.rows; ++row)
    for (int64_t k = 0; k < span.length; k += V::lanes) {
      const int64_t at = row * span.stride + k, left = span.length - k;
      const V grad = load_some(static_cast<const T*>(a.grad) + span.dense + at, left);
      const V x = load_some(static_cast<const T*>(a.x) + span.x + at, left);
      total = total + grad;
      product = product + only(grad * (x - mean), left);
    }
  sums[span.channel] += sum(total);
  sums[a.channels + span.channel] += sum(product);
}

template <class T>
void add_column_sums(const TdbnGradientSums& a, const Span& span, double* sums) {
  using V = Values<T>;
  for (int64_t k = 0; k < span.length; k += V::lanes) {
    const int64_t left = span.length - k;
    const V mean = values<true, compute_t<T>>(a.mean, 0, k, left);
    V total{}, product{};
    for (int64_t row = 0; row < span.rows; ++row) {
      const int64_t at = row * span.stride + k;
      const V grad = load_some(static_cast<const T*>(a.grad) + span.dense + at, left);
      total = total + grad;
      product = product + grad * (load_some(static_cast<const T*>(a.x) + span.x + at, left) - mean);
    }
    for (int i = 0; i < V::lanes && i < left; ++i) {
      sums[k + i] += double(total.v[i]);
      sums[a.channels + k + i] += double(product.v[i]);
    }
  }
}

template <class T>
void gradient_sums(const TdbnGradientSums& a, int threads) {
  const ChannelSums sums(2 * a.channels, threads);
  each_span(a, threads, [&](const Span& span, int thread) {
    a.inner == 1 ? add_column_sums<T>(a, span, sums.of(thread)) : add_row_sums<T>(a, span, sums.of(thread));
  });
  sums.write(static_cast<compute_t<T>*>(a.sums));
}

// Calls run(T{}) for the type of the elements.
template <class Run>
void with_type(DType dtype, const Run& run) {
  switch (dtype) {
    case DType::float32: return run(float{});
    case DType::float16: return run(Half{});
    case DType::bfloat16: return run(BFloat{});
    case DType::float64: return run(double{});
  }
}

}  // namespace

void tdbn_moments(const TdbnMoments& a, int threads) {
  with_type(a.dtype, [&](auto type) { moments<decltype(type)>(a, threads); });
}

void tdbn_normalise(const TdbnNormalise& a, int threads) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    a.inner == 1 ? normalise<true, T>(a, threads) : normalise<false, T>(a, threads);
  });
}

void tdbn_gradient_sums(const TdbnGradientSums& a, int threads) {
  with_type(a.dtype, [&](auto type) { gradient_sums<decltype(type)>(a, threads); });
}

void tdbn_gradient(const TdbnGradient& a, int threads) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    a.inner == 1 ? gradient<true, T>(a, threads) : gradient<false, T>(a, threads);
  });
}

}  // namespace DEAL_ISA
}  // namespace deal
