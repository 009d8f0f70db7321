// A block walks down a strip of columns, one thread per column, and keeps the last rows in registers. Each row is
// filtered horizontally through shared memory, then vertically within the thread. For a gradient, the slopes of the map
// are filtered in the same way, five rows behind. Only results are written to global memory.
#include "../../math/ssim.h"
#include "../common/block_sum.h"
#include "../common/kernels.h"
#include "../common/memory.h"

namespace deal {
namespace cuda {
namespace {

constexpr int kTall = 64, kFlat = 32;   // rows of a band; fewer if there would be too few blocks
constexpr int64_t kFewBlocks = 512;
constexpr int kPitch = kBlock + 16;     // of a row in shared memory, with the margins of windows
constexpr int kSharedBytes = 8 * kPitch * int(sizeof(float)) / kBlock;  // of a thread

struct Bands {
  Ssim call;
  int64_t strips, bands;
  int columns, rows;  // of a block
};

struct RowWindow {
  const float* at;
  __device__ __forceinline__ float operator()(int k) const { return at[k]; }
};

// The last values of a column, filtered horizontally.
struct ColumnWindow {
  float at[2 * kReach + 1];

  __device__ __forceinline__ float operator()(int k) const { return at[kReach + k]; }
  __device__ __forceinline__ void push(float value) {
#pragma unroll
    for (int k = 0; k < 2 * kReach; ++k) at[k] = at[k + 1];
    at[2 * kReach] = value;
  }
};

template <class T>
__device__ __forceinline__ float value_at(const void* image, int64_t at) {
  return widen(static_cast<const T*>(image)[at]);
}

template <class T>
__device__ __forceinline__ void set(void* image, int64_t at, float value) {
  narrow(value, static_cast<T*>(image)[at]);
}

template <class T, bool gradient>
__global__ void __launch_bounds__(kBlock) walk(const Bands b) {
  constexpr int reach = gradient ? kReach : 0;
  const Ssim& a = b.call;
  const int me = int(threadIdx.x);
  const int64_t unit = blockIdx.x / b.bands, plane = unit / b.strips;
  const int64_t top = (blockIdx.x - unit * b.bands) * b.rows;
  const int64_t bottom = top + b.rows < a.height ? top + b.rows : a.height;
  const int64_t begin = (unit - plane * b.strips) * b.columns;
  const int64_t x = begin - reach - kReach + me;
  const bool inside = x >= 0 && x < a.width;
  const bool own = inside && x >= begin && x < begin + b.columns;
  const bool in_map = x >= a.margin && x < a.width - a.margin;
  const int64_t plane_at = plane * a.height * a.width + x;
  const int64_t map_width = a.width - 2 * a.margin;
  const int64_t map_at = (plane * (a.height - 2 * a.margin) - a.margin) * map_width + x - a.margin;
  const float factor = a.grad && !a.grad_of_map ? *static_cast<const float*>(a.grad) : 1.0f;
  const float c1 = float(a.c1), c2 = float(a.c2), constant = float(a.structure) * factor;

  float* const images = static_cast<float*>(block_memory()) + kReach + me;
  float* const slopes = images + 4 * kPitch;
  ColumnWindow moments[4], behind[4];
  float map_sum = 0, distance_sum = 0;
  const int64_t first = top - reach - kReach, last = bottom + reach + kReach;
  for (int64_t y = first; y < last; ++y) {
    const bool there = inside && y >= 0 && y < a.height;
    const float one = there ? value_at<T>(a.a, plane_at + y * a.width) : 0.0f;
    const float other = there ? value_at<T>(a.b, plane_at + y * a.width) : 0.0f;
    if (own && y >= top && y < bottom) distance_sum += fabsf(one - other);
    images[0] = one;
    images[kPitch] = other;
    images[2 * kPitch] = one * one + other * other;
    images[3 * kPitch] = one * other;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; ++i) moments[i].push(filtered<float>(RowWindow{images + i * kPitch}));
    if (!gradient) __syncthreads();

    const int64_t row = y - kReach;  // of the map
    if (row < top - reach) {
      if (gradient) __syncthreads();
      continue;
    }
    const bool valued = in_map && row >= a.margin && row < a.height - a.margin;
    const Moments<float> m = {filtered<float>(moments[0]), filtered<float>(moments[1]), filtered<float>(moments[2]),
                              filtered<float>(moments[3])};
    const bool mine = valued && own && row >= top && row < bottom;
    if constexpr (!gradient) {
      const float value = similarity(m, c1, c2);
      if (mine) map_sum += value;
      if (mine && a.map) set<T>(a.map, map_at + row * map_width, value);
    } else {
      const float weight = a.grad_of_map && valued ? value_at<T>(a.grad, map_at + row * map_width) : constant;
      const Similarity<float> found = similarity(m, c1, c2, weight);
      if (mine) map_sum += found.value;
      if (mine && a.map) set<T>(a.map, map_at + row * map_width, found.value);
      slopes[0] = valued ? found.slope.a : 0.0f;
      slopes[kPitch] = valued ? found.slope.b : 0.0f;
      slopes[2 * kPitch] = valued ? found.slope.squares : 0.0f;
      slopes[3 * kPitch] = valued ? found.slope.product : 0.0f;
      __syncthreads();
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (i > 1 || (i == 0 ? a.grad_a : a.grad_b)) behind[i].push(filtered<float>(RowWindow{slopes + i * kPitch}));
      const int64_t at_row = row - kReach, at = plane_at + at_row * a.width;
      if (!own || at_row < top) continue;
      const float squares = filtered<float>(behind[2]), product = filtered<float>(behind[3]);
      const float pixel_a = value_at<T>(a.a, at), pixel_b = value_at<T>(a.b, at);
      const float apart = distance_gradient(pixel_a, pixel_b, float(a.pixel) * factor);
      if (a.grad_a)
        set<T>(a.grad_a, at,
               similarity_gradient(filtered<float>(behind[0]), squares, product, pixel_a, pixel_b) + apart);
      if (a.grad_b)
        set<T>(a.grad_b, at,
               similarity_gradient(filtered<float>(behind[1]), squares, product, pixel_b, pixel_a) - apart);
    }
  }
  if (!a.loss) return;
  const double sum = block_sum(a.structure * double(map_sum) + a.pixel * double(distance_sum));
  if (me == 0) static_cast<double*>(a.loss)[blockIdx.x] = sum;
}

bool has_gradient(const Ssim& call) { return call.grad_a || call.grad_b; }

int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

Bands bands_of(const Ssim& call, bool gradient) {
  Bands b = {call, 0, 0, kBlock - 2 * kReach * (gradient ? 2 : 1), kTall};
  b.strips = divided_up(call.width, b.columns);
  if (call.planes * b.strips * divided_up(call.height, kTall) < kFewBlocks) b.rows = kFlat;
  b.bands = divided_up(call.height, b.rows);
  return b;
}

int64_t blocks_of(const Bands& b) { return b.call.planes * b.strips * b.bands; }

}  // namespace

int64_t ssim_parts(const Ssim& call) { return blocks_of(bands_of(call, has_gradient(call))); }

const char* ssim(const Ssim& call, void*, CUstream_st* stream) {
  const bool gradient = has_gradient(call);
  const Bands b = bands_of(call, gradient);
  return with_type(call.dtype, [&](auto type) {
    using T = decltype(type);
    return launch(gradient ? walk<T, true> : walk<T, false>, b, blocks_of(b) * kBlock, kSharedBytes, stream);
  });
}

}  // namespace cuda
}  // namespace deal
