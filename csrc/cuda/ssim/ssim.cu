// A block walks down a strip of columns, one thread per column, and keeps the last rows in registers. Each row is
// filtered horizontally through shared memory, then vertically within the thread. For a gradient, the slopes of the map
// are filtered in the same way, five rows behind. Only results are written to global memory. Pixels are read before the
// barriers of a row, so that nothing waits for them behind one.
#include "../../math/ssim.h"
#include "../common/block_sum.h"
#include "../common/kernels.h"
#include "../common/memory.h"

namespace deal {
namespace cuda {
namespace {

constexpr int kTall = 64, kFlat = 8;    // rows of a band: as many as leave enough blocks
constexpr int64_t kEnoughBlocks = 512;
constexpr int kWindow = 2 * kReach + 1;
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

// The last values of a column, filtered horizontally. The newest has taken the place of the oldest, at `turn`, which a
// loop unrolled by the length of the window makes a constant.
struct Column {
  float at[kWindow];
};

struct ColumnWindow {
  const Column& column;
  int turn;
  __device__ __forceinline__ float operator()(int k) const { return column.at[(turn + 1 + kReach + k) % kWindow]; }
};

template <class T>
__device__ __forceinline__ float value_at(const void* image, int64_t at) {
  return widen(static_cast<const T*>(image)[at]);
}

template <class T>
__device__ __forceinline__ void set(void* image, int64_t at, float value) {
  narrow(value, static_cast<T*>(image)[at]);
}

// A row relative to the top of a band; rows far outside of it are equally far.
__device__ __forceinline__ int relative(int64_t row, int64_t top) {
  constexpr int64_t far = 2 * kTall;
  const int64_t away = row - top;
  return int(away < -far ? -far : away > far ? far : away);
}

template <class T, bool gradient>
__global__ void __launch_bounds__(kBlock, gradient ? 4 : 7) walk(const Bands b) {
  constexpr int reach = gradient ? kReach : 0;
  const Ssim& a = b.call;
  const int me = int(threadIdx.x);
  const int64_t unit = blockIdx.x / b.bands, plane = unit / b.strips;
  const int64_t top = (blockIdx.x - unit * b.bands) * b.rows;
  const int64_t begin = (unit - plane * b.strips) * b.columns;
  const int64_t x = begin - reach - kReach + me;
  const bool inside = x >= 0 && x < a.width;
  const bool own = inside && x >= begin && x < begin + b.columns;
  const bool in_map = x >= a.margin && x < a.width - a.margin;
  // Rows are counted from the top of the band.
  const int rows = relative(a.height, top) < b.rows ? relative(a.height, top) : b.rows;
  const int image_top = relative(0, top), image_bottom = relative(a.height, top);
  const int map_top = relative(a.margin, top), map_bottom = relative(a.height - a.margin, top);
  const int64_t plane_at = (plane * a.height + top) * a.width + x;
  const int64_t map_width = a.width - 2 * a.margin;
  const int64_t map_at = (plane * (a.height - 2 * a.margin) + top - a.margin) * map_width + x - a.margin;
  const float factor = a.grad && !a.grad_of_map ? *static_cast<const float*>(a.grad) : 1.0f;
  const float c1 = float(a.c1), c2 = float(a.c2), constant = float(a.structure) * factor;

  float* const images = static_cast<float*>(block_memory()) + kReach + me;
  float* const slopes = images + 4 * kPitch;
  Column moments[4], behind[4];
  float map_sum = 0, distance_sum = 0;
  const int first = -reach - kReach, last = rows + reach + kReach;
  const auto pixel = [&](const void* image, int y, bool wanted) {
    return wanted ? value_at<T>(image, plane_at + y * a.width) : 0.0f;
  };
  const auto there = [&](int y) { return inside && y >= image_top && y < image_bottom; };
  float next_one = pixel(a.a, first, there(first)), next_other = pixel(a.b, first, there(first));
  // The row y, which is the row `turn` of its round. Returns early where there is no result yet.
  const auto visit = [&](int y, int turn) {
    const auto down = [&](const Column& column) { return filtered<float>(ColumnWindow{column, turn}); };
    const float one = next_one, other = next_other;
    const bool more = there(y + 1);
    next_one = pixel(a.a, y + 1, more);
    next_other = pixel(a.b, y + 1, more);
    const int row = y - kReach, at_row = row - kReach;  // of the map, and of the gradient
    const bool gives = gradient && own && at_row >= 0;
    const float pixel_a = pixel(a.a, at_row, gives), pixel_b = pixel(a.b, at_row, gives);
    if (own && y >= 0 && y < rows) distance_sum += fabsf(one - other);
    images[0] = one;
    images[kPitch] = other;
    images[2 * kPitch] = one * one + other * other;
    images[3 * kPitch] = one * other;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; ++i) moments[i].at[turn] = filtered<float>(RowWindow{images + i * kPitch});
    if (!gradient) __syncthreads();

    if (row < -reach) {
      if (gradient) __syncthreads();
      return;
    }
    const bool valued = in_map && row >= map_top && row < map_bottom;
    const Moments<float> m = {down(moments[0]), down(moments[1]), down(moments[2]), down(moments[3])};
    const bool mine = valued && own && row >= 0 && row < rows;
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
        if (i > 1 || (i == 0 ? a.grad_a : a.grad_b))
          behind[i].at[turn] = filtered<float>(RowWindow{slopes + i * kPitch});
      if (!gives) return;
      const int64_t at = plane_at + at_row * a.width;
      const float squares = down(behind[2]), product = down(behind[3]);
      const float apart = distance_gradient(pixel_a, pixel_b, float(a.pixel) * factor);
      if (a.grad_a)
        set<T>(a.grad_a, at,
               similarity_gradient(down(behind[0]), squares, product, pixel_a, pixel_b) + apart);
      if (a.grad_b)
        set<T>(a.grad_b, at,
               similarity_gradient(down(behind[1]), squares, product, pixel_b, pixel_a) - apart);
    }
  };
  for (int y = first; y < last; y += kWindow)
#pragma unroll
    for (int turn = 0; turn < kWindow; ++turn)
      if (y + turn < last) visit(y + turn, turn);
  if (!a.loss) return;
  const double sum = block_sum(a.structure * double(map_sum) + a.pixel * double(distance_sum));
  if (me == 0) static_cast<double*>(a.loss)[blockIdx.x] = sum;
}

bool has_gradient(const Ssim& call) { return call.grad_a || call.grad_b; }

int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

Bands bands_of(const Ssim& call, bool gradient) {
  Bands b = {call, 0, 0, kBlock - 2 * kReach * (gradient ? 2 : 1), kTall};
  b.strips = divided_up(call.width, b.columns);
  while (b.rows > kFlat && call.planes * b.strips * divided_up(call.height, b.rows) < kEnoughBlocks) b.rows /= 2;
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
