// The reductions of batch norm: moments of the channels, and the sums that the gradient needs.
#include "../common/channels.h"
#include "../common/kernels.h"
#include "spans.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// Sets the lanes past the end to zero.
template <class S>
DEAL_INLINE Pack<S> only(Pack<S> a, int64_t count) {
  if (count >= Pack<S>::lanes) return a;
  for (int i = 0; i < Pack<S>::lanes; ++i)
    if (i >= count) a.v[i] = 0;
  return a;
}

struct Welford {
  double count, mean, squares;  // squares: sum of squared distances from the mean

  void add(double n, double m, double s) {
    const double all = count + n, distance = m - mean;
    mean += distance * (n / all);
    squares += s + distance * distance * (count * n / all);
    count = all;
  }
};

// Reads a span twice: for the mean, then for the squared distances from it. A span is short enough that the compute
// type is precise enough for both.
template <class T>
void add_row_moments(const Span& span, const T* x, Welford* moments) {
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
void add_column_moments(const Span& span, const T* x, Welford* moments) {
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
  const Buffer<Welford> all(threads * a.channels, Fill::zeros);
  each_span(a, threads, [&](const Span& span, int thread) {
    const T* const x = static_cast<const T*>(a.x) + span.x;
    Welford* const mine = all.get() + thread * a.channels;
    a.inner == 1 ? add_column_moments(span, x, mine) : add_row_moments(span, x, mine);
  });
  for (int64_t c = 0; c < a.channels; ++c) {
    Welford& total = all[c];
    for (int thread = 1; thread < threads; ++thread) {
      const Welford& part = all[thread * a.channels + c];
      if (part.count > 0) total.add(part.count, part.mean, part.squares);
    }
    static_cast<S*>(a.mean)[c] = S(total.mean);
    static_cast<S*>(a.variance)[c] = S(total.squares / total.count);
  }
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

}  // namespace

void tdbn_moments(const TdbnMoments& a, int threads) {
  with_type(a.dtype, [&](auto type) { moments<decltype(type)>(a, threads); });
}

void tdbn_gradient_sums(const TdbnGradientSums& a, int threads) {
  with_type(a.dtype, [&](auto type) { gradient_sums<decltype(type)>(a, threads); });
}

}  // namespace DEAL_ISA
}  // namespace deal
