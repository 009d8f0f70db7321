// Padding of images and its adjoint, both as gathers: a thread computes a word of the result from the pixels, or from the
// gradients, that belong there. Nothing is added in memory, so that sums have a fixed order.
#include <type_traits>

#include "../../math/padding.h"
#include "../common/divisor.h"
#include "../common/kernels.h"
#include "../common/launch.h"
#include "../common/memory.h"

namespace deal {
namespace cuda {
namespace {

struct Gather {
  PaddedAxis<int> rows, columns;
  int64_t channels;                    // words of a pixel
  int64_t count;                       // words of the result
  Divisor of_row, of_plane, of_pixel;  // words of a row, rows of a plane and words of a pixel of the result
  const void* from;
  void* to;
};

struct Place {
  int64_t plane, channel;
  int y, x;
};

__device__ __forceinline__ Place place_of(const Gather& g, int64_t word) {
  const int64_t row = g.of_row.quotient(word), plane = g.of_plane.quotient(row), within = word - row * g.of_row.by;
  const int64_t x = g.of_pixel.quotient(within);
  return {plane, within - x * g.of_pixel.by, int(row - plane * g.of_plane.by), int(x)};
}

__device__ __forceinline__ int pixel_at(const PaddedAxis<int>& a, int position) {
  return deal::pixel_at(position - a.before, a.count, a.mode);
}

__device__ __forceinline__ int length(const PaddedAxis<int>& a) { return a.before + a.count + a.after; }

template <class Word>
__global__ void __launch_bounds__(kBlock) pad_pixels(const Gather g) {
  const int64_t n = first_of_thread(1);
  if (n >= g.count) return;
  const Place p = place_of(g, n);
  const int y = pixel_at(g.rows, p.y), x = pixel_at(g.columns, p.x);
  const int64_t at = ((p.plane * g.rows.count + y) * g.columns.count + x) * g.channels + p.channel;
  Word word = {};
  if (y >= 0 && x >= 0) word = static_cast<const Word*>(g.from)[at];
  static_cast<Word*>(g.to)[n] = word;
}

// The first pixel of the image's row that a row of the result reads; -1 for zeros.
__device__ __forceinline__ int64_t row_of(const Gather& g, const Place& p) {
  const int y = pixel_at(g.rows, p.y);
  return y < 0 ? -1 : (p.plane * g.rows.count + y) * g.columns.count;
}

// Pixels of one channel. The rows of the result need not consist of whole words, so a word may go on in the next row.
template <class T, int W, int L>
__global__ void __launch_bounds__(kBlock) pad_rows(const Gather g) {
  const int64_t first = first_of_thread(L), left = g.count - first;
  if (left <= 0) return;
  Place p = place_of(g, first);
  int64_t row = row_of(g, p);
  Stored<T, L> values;
#pragma unroll
  for (int i = 0; i < L; ++i) {
    const int x = pixel_at(g.columns, p.x);
    values.at[i] = row >= 0 && x >= 0 && i < left ? static_cast<const T*>(g.from)[row + x] : T(0);
    if (++p.x < length(g.columns)) continue;
    p.x = 0;
    const bool ends = ++p.y == length(g.rows);
    p.plane += ends;
    p.y = ends ? 0 : p.y;
    row = row_of(g, p);
  }
  T* const to = static_cast<T*>(g.to) + first;
  if (left < L) store<1>(to, values, left);
  else store<W>(to, values, left);
}

// The first position of a row of the padded image.
__device__ __forceinline__ int64_t padded_row(const Gather& g, const Place& p, int position) {
  return (p.plane * length(g.rows) + position) * length(g.columns);
}

// W channels of a pixel.
template <class T, int W>
__global__ void __launch_bounds__(kBlock) unpad_pixels(const Gather g) {
  const int64_t n = first_of_thread(1);
  if (n >= g.count) return;
  const Place p = place_of(g, n);
  const Readers<int> rows = readers_of(p.y, g.rows), columns = readers_of(p.x, g.columns);
  Lanes<W> total = filled<W>(0.0f);
#pragma unroll 1
  for (int k = rows.begin; k <= rows.end; ++k) {
    const int64_t row = padded_row(g, p, rows.position(k));
#pragma unroll 1
    for (int j = columns.begin; j <= columns.end; ++j) {
      const int64_t at = (row + columns.position(j)) * g.channels + p.channel;
      total = total + widen(load<W, W, Use::again>(static_cast<const T*>(g.from) + at * W, W));
    }
  }
  store<W, W>(static_cast<T*>(g.to) + n * W, total, W);
}

// The sum over all positions that read a pixel.
template <class T>
__device__ __forceinline__ float gathered(const Gather& g, const Place& p, const Readers<int>& rows, int x) {
  const Readers<int> columns = readers_of(x, g.columns);
  float total = 0.0f;
#pragma unroll 1
  for (int k = rows.begin; k <= rows.end; ++k) {
    const T* const row = static_cast<const T*>(g.from) + padded_row(g, p, rows.position(k));
#pragma unroll 1
    for (int j = columns.begin; j <= columns.end; ++j) total += widen(row[columns.position(j)]);
  }
  return total;
}

// W neighbouring pixels of a channel. Away from the edges a row of positions reads them once each: these are read ahead.
template <class T, int W>
__global__ void __launch_bounds__(kBlock) unpad_rows(const Gather g) {
  const int64_t n = first_of_thread(1);
  if (n >= g.count) return;
  const Place p = place_of(g, n);
  const Readers<int> rows = readers_of(p.y, g.rows);
  const int x = p.x * W;
  T* const to = static_cast<T*>(g.to) + n * W;
  if (x > g.columns.before && x + W < g.columns.count - g.columns.after) {
    Lanes<W> total = filled<W>(0.0f);
#pragma unroll 1
    for (int k = rows.begin; k <= rows.end; ++k) {
      const T* const row = static_cast<const T*>(g.from) + padded_row(g, p, rows.position(k)) + g.columns.before + x;
      total = total + widen(load<1, W, Use::again>(row, W));
    }
    store<W, W>(to, total, W);
  } else {
#pragma unroll 1
    for (int i = 0; i < W; ++i) narrow(gathered<T>(g, p, rows, x + i), to[i]);
  }
}

// The gather of a result of this size, `across` words of which are a row.
Gather gather_of(const PadShape& a, int64_t height, int64_t across, int64_t channels, const void* from, void* to) {
  const PaddedAxis<int> rows = {int(a.height), int(a.top), int(a.bottom), a.mode};
  const PaddedAxis<int> columns = {int(a.width), int(a.left), int(a.right), a.mode};
  const int64_t count = a.planes * height * across;
  return {rows, columns, channels, count, Divisor(across), Divisor(height), Divisor(channels), from, to};
}

// Returns run(W) with the largest W for which `length` is a multiple of W elements, and both tensors have such words.
template <class T, class Run>
const char* with_words(int64_t length, const void* from, const void* to, const Run& run) {
  constexpr int most = 16 / int(sizeof(T));
  const auto fit = [&](int W) { return length % W == 0 && allows<T>(W, from) && allows<T>(W, to); };
  if (fit(most)) return run(std::integral_constant<int, most>{});
  if (fit(4)) return run(std::integral_constant<int, 4>{});
  return run(std::integral_constant<int, 1>{});
}

const char* unfit(const PadShape& a) {
  return a.padded_height() > INT32_MAX || a.padded_width() > INT32_MAX ? "an image to pad has too long sides" : nullptr;
}

}  // namespace

const char* pad_forward(const PadForward& a, void*, CUstream_st* stream) {
  if (const char* const error = unfit(a)) return error;
  const int64_t height = a.padded_height(), width = a.padded_width();
  return with_type(a.dtype, [&](auto type) {
    using T = word_t<decltype(type), 1>;
    constexpr int most = 16 / int(sizeof(T));
    if (a.inner == 1) {
      const Gather g = gather_of(a, height, width, 1, a.x, a.out);
      const auto kernel = allows<T>(most, a.out) ? pad_rows<T, most, most> : pad_rows<T, 1, most>;
      return launch(kernel, g, (g.count + most - 1) / most, 0, stream);
    }
    return with_words<T>(a.inner, a.x, a.out, [&](auto words) {
      constexpr int W = decltype(words)::value;
      const int64_t channels = a.inner / W;
      const Gather g = gather_of(a, height, width * channels, channels, a.x, a.out);
      return launch(pad_pixels<word_t<T, W>>, g, g.count, 0, stream);
    });
  });
}

const char* pad_backward(const PadBackward& a, void*, CUstream_st* stream) {
  if (const char* const error = unfit(a)) return error;
  return with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const int64_t row = a.inner == 1 ? a.width : a.inner;
    const void* const from = a.inner == 1 ? nullptr : a.grad;  // pixels of one channel are read one by one
    return with_words<T>(row, from, a.grad_x, [&](auto words) {
      constexpr int W = decltype(words)::value;
      const int64_t channels = a.inner == 1 ? 1 : a.inner / W, across = a.width * a.inner / W;
      const Gather g = gather_of(a, a.height, across, channels, a.grad, a.grad_x);
      return launch(a.inner == 1 ? unpad_rows<T, W> : unpad_pixels<T, W>, g, g.count, 0, stream);
    });
  });
}

}  // namespace cuda
}  // namespace deal
