// Batch norm, element by element.
#include "../../math/norm.h"
#include "../common/kernels.h"
#include "spans.h"

namespace deal {
namespace DEAL_ISA {
namespace {

template <class T, class S>
DEAL_INLINE void store_some(T* p, Pack<S> a, int64_t count, bool streaming) {
  if (streaming) return stream(p, a);
  if (count >= Pack<S>::lanes) return store(p, a);
  T some[Pack<S>::lanes];
  store(some, a);
  __builtin_memcpy(p, some, sizeof(T) * size_t(count));
}

// Writes of(channel, index in the row, elements left, x, index in the result) to every element.
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

}  // namespace

void tdbn_normalise(const TdbnNormalise& a, int threads) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    a.inner == 1 ? normalise<true, T>(a, threads) : normalise<false, T>(a, threads);
  });
}

void tdbn_gradient(const TdbnGradient& a, int threads) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    a.inner == 1 ? gradient<true, T>(a, threads) : gradient<false, T>(a, threads);
  });
}

}  // namespace DEAL_ISA
}  // namespace deal
