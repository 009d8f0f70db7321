// The arguments of the kernels of a degradation mixture, and what both passes do with a tile of an image.
//
// A stage takes two kernels. The first computes what a tile with its surroundings is too small for: the mean gray value,
// the small images of resizes, and the vertical half of wide_blur. The second processes tiles in shared memory, with
// their surroundings, and adds the results of all ops for a thread's pixels in registers. Sums over a sample are left by
// block; every block that needs the sum adds these itself.
#pragma once
#include "../../types.h"
#include "../../math/degradation_plan.h"
#include "../common/block_sum.h"
#include "../common/memory.h"

namespace deal {
namespace cuda {

constexpr int kMostOperations = 48;             // that fit into the arguments of a kernel
constexpr int kTile = 32;                       // columns of a tile
constexpr int kRows = 4;                        // pixels of a thread, below each other
constexpr int kTall = kRows * kBlock / kTile;   // rows of a tile
constexpr int kPitch = kTile + 2 * kBlurReach;  // row length of a tile with its surroundings
constexpr int kPlane = kPitch * (kTall + 2 * kBlurReach);
constexpr int kOrigin = kBlurReach * kPitch + kBlurReach;  // offset of the tile in its plane
constexpr int kMostBlocks = 1024;                          // blocks of a sample

struct Step : PlannedOp<float> {
  int64_t small;  // offset of the small images of all samples
};

struct Image {
  DType dtype;
  const void* data;
  const double* through;  // sums by block of what must be added to all pixels, [batch, blocks]; may be null
};

struct Stage {
  int64_t batch, stages, stage;
  int channels, height, width, operations;
  int tiles_across, tiles, tiles_of_block, blocks;  // of a sample
  bool contrast, sharpness, looks;
  bool blur, taps_needed;  // whether there is a gaussian_blur; one or a wide_blur
  const float* weights;
  Image image;        // the input of the stage
  DType result_dtype;
  void* result;       // the result; in the backward pass the gradient of the input; null: not computed
  double* sums;       // of gray values, [batch, blocks]
  Taps<float>* taps;  // windows of blurs, [batch, stages, operations]
  float* small;       // small images and vertical blurs; in the backward pass their gradients
  // Backward pass only:
  Image grad;
  int* places;      // positions of the maxima in their windows
  double* through;  // sums of the gradient through the mean, [batch, blocks]
  double* dots;     // dot products of the gradient and each op's result, [batch, blocks, operations]
  Step step[kMostOperations];
};
static_assert(sizeof(Stage) <= 4096, "the arguments of a kernel have 4 KiB");

// The index of the current stage of a sample in [samples, stages].
__device__ __forceinline__ int64_t number_of(const Stage& s, int64_t sample) { return sample * s.stages + s.stage; }

// The first pixel of a thread, in the tile and in the image, and the first pixel of the tile.
struct ThreadTile {
  int row, column, y, x, top, left;

  __device__ __forceinline__ ThreadTile(const Stage& s, int tile)
      : row(int(threadIdx.x) / kTile * kRows), column(int(threadIdx.x) % kTile) {
    const int down = tile / s.tiles_across;
    top = down * kTall;
    left = (tile - down * s.tiles_across) * kTile;
    y = top + row;
    x = left + column;
  }
  __device__ __forceinline__ int in_tile() const { return row * kPitch + column; }
};

// The tiles of a block.
struct BlockTiles {
  int64_t sample, slot;  // slot: where the block leaves its sums
  int begin, end;

  __device__ __forceinline__ explicit BlockTiles(const Stage& s) : sample(blockIdx.x / s.blocks), slot(blockIdx.x) {
    begin = int(slot - sample * s.blocks) * s.tiles_of_block;
    end = begin + s.tiles_of_block < s.tiles ? begin + s.tiles_of_block : s.tiles;
  }
};

__device__ __forceinline__ int within(int at, int count) { return at < 0 ? 0 : at < count ? at : count - 1; }

__device__ __forceinline__ int64_t plane_of(const Stage& s, int64_t sample, int channel) {
  return (sample * s.channels + channel) * s.height * s.width;
}

// An op's values for the pixels of a thread: one for each, or the same for all.
struct ThreadValues {
  const float* first;
  int stride, y, height;

  __device__ __forceinline__ ThreadValues(const Stage& s, const Step& step, int64_t number, int channel,
                                          const ThreadTile& at)
      : first(step.values), stride(s.width), y(at.y), height(s.height) {
    const int x = within(at.x, s.width);
    switch (step.kind) {
      case DegradationKind::row_stripe:
      case DegradationKind::row_gain:
        first += number * s.height;
        stride = 1;
        break;
      case DegradationKind::pattern: first += number * s.height * s.width + x; break;
      case DegradationKind::noise:
      case DegradationKind::dead: first += plane_of(s, number, channel) + x; break;
      default:
        first += number * s.width + x;
        stride = 0;
    }
  }
  __device__ __forceinline__ float operator()(int k) const { return first[int64_t(within(y + k, height)) * stride]; }
};

// Calls run(data) with a pointer of the type of the elements.
template <class Run>
__device__ __forceinline__ void with_data(DType dtype, const void* data, const Run& run) {
  if (dtype == DType::float32) run(static_cast<const float*>(data));
  else if (dtype == DType::float16) run(static_cast<const __half*>(data));
  else run(static_cast<const __nv_bfloat16*>(data));
}
template <class Run>
__device__ __forceinline__ void with_data(DType dtype, void* data, const Run& run) {
  if (dtype == DType::float32) run(static_cast<float*>(data));
  else if (dtype == DType::float16) run(static_cast<__half*>(data));
  else run(static_cast<__nv_bfloat16*>(data));
}

__device__ __forceinline__ float value_at(const Image& image, int64_t at) {
  if (image.dtype == DType::float32) return static_cast<const float*>(image.data)[at];
  if (image.dtype == DType::float16) return widen(static_cast<const __half*>(image.data)[at]);
  return widen(static_cast<const __nv_bfloat16*>(image.data)[at]);
}

// Writes a thread's pixels; `to` is the address of the first.
template <class T>
__device__ __forceinline__ void write_rows(T* to, const Stage& s, const ThreadTile& at, const float (&values)[kRows]) {
#pragma unroll
  for (int k = 0; k < kRows; ++k)
    if (at.x < s.width && at.y + k < s.height) narrow(values[k], to[int64_t(k) * s.width]);
}

// How the surroundings of a tile are read: how many pixels, and whether the image is extended by reflection or by
// zeros.
struct Window {
  int reach;
  bool reflect;
};

template <class T>
__device__ __forceinline__ void read_tile(const T* __restrict__ plane, const Stage& s, const ThreadTile& at,
                                          Window window, float offset, float* to) {
  for (int column = at.column - window.reach; column < kTile + window.reach; column += kTile) {
    const int x = at.left + column, from_x = within(int(reflected<int64_t>(x, s.width)), s.width);
#pragma unroll 2
    for (int row = int(threadIdx.x) / kTile - window.reach; row < kTall + window.reach; row += kBlock / kTile) {
      const int y = at.top + row, from_y = within(int(reflected<int64_t>(y, s.height)), s.height);
      const bool there = window.reflect || (x == from_x && y == from_y);
      const float value = widen(plane[int64_t(from_y) * s.width + from_x]) + offset;
      to[row * kPitch + column] = there ? value : 0.0f;
    }
  }
}

// The sum over all blocks of a sample.
__device__ __forceinline__ double sum_of_blocks(const Stage& s, const double* parts, int64_t sample) {
  double total = 0;
  for (int i = int(threadIdx.x); i < s.blocks; i += kBlock) total += parts[sample * s.blocks + i];
  return block_sum(total);
}

__device__ __forceinline__ double mean_of_blocks(const Stage& s, const double* parts, int64_t sample) {
  return parts ? sum_of_blocks(s, parts, sample) / (double(s.height) * double(s.width)) : 0.0;
}

// The offset of a channel for the gradient through the mean gray value.
__device__ __forceinline__ float offset_of(const Stage& s, int channel, double through) {
  return float(through * double(gray_share<float>(channel, s.channels)));
}

// Reads a tile of all channels into planes.
__device__ __forceinline__ void read_tiles(const Stage& s, const Image& image, int64_t sample, const ThreadTile& at,
                                           Window window, double through, float* planes) {
  with_data(image.dtype, image.data, [&](auto* data) {
    for (int c = 0; c < s.channels; ++c)
      read_tile(data + plane_of(s, sample, c), s, at, window, offset_of(s, c, through), planes + c * kPlane);
  });
}

// The sum of the gray values of a thread's pixels in a tile.
__device__ __forceinline__ double sum_of_gray(const Stage& s, int64_t sample, const ThreadTile& at) {
  double total = 0;
  for (int c = 0; c < s.channels; ++c) {
    const double share = double(gray_share<float>(c, s.channels));
    const int64_t first = plane_of(s, sample, c) + int64_t(at.y) * s.width + at.x;
#pragma unroll
    for (int k = 0; k < kRows; ++k)
      if (at.x < s.width && at.y + k < s.height)
        total += share * double(value_at(s.image, first + int64_t(k) * s.width));
  }
  return total;
}

__device__ __forceinline__ void leave_gray(const Stage& s, int64_t slot, double mine) {
  if (!s.contrast) return;
  const double total = block_sum(mine);
  if (threadIdx.x == 0) s.sums[slot] = total;
}

// The offset of a channel's small image.
__device__ __forceinline__ int64_t small_of(const Stage& s, const Step& step, int64_t sample, int channel) {
  return step.small + (sample * s.channels + channel) * step.height * step.width;
}

// The same as blurred<float, kWideReach>, in a loop: all values at once would take many registers.
template <class At>
__device__ __forceinline__ float wide_blurred(const At& at, const Taps<float>& taps) {
  static_assert(kWideReach % 2 == 1, "the farthest pixels have no others beside them");
  float total = two_away<float>(kWideReach, at, taps);
#pragma unroll 1
  for (int k = kWideReach - 2; k > 0; k -= 2)
    total = total + (two_away<float>(k + 1, at, taps) + two_away<float>(k, at, taps));
  return total + at(0) * taps.at[0];
}

// Whether the first kernel leaves an image of the op.
DEAL_INLINE bool has_small(DegradationKind kind) { return resizes(kind) || kind == DegradationKind::wide_blur; }

// Calls run(channel, row, column, offset) for each small pixel of an op whose window begins in a tile.
template <class Run>
__device__ __forceinline__ void each_small(const Stage& s, const Step& step, int64_t sample, const ThreadTile& at,
                                           const Run& run) {
  const auto first = [&](int edge, int count) {
    const int found = (edge + step.factor - 1) / step.factor;
    return found < count ? found : count;
  };
  const int top = first(at.top, step.height), left = first(at.left, step.width);
  const int rows = first(at.top + kTall, step.height) - top, columns = first(at.left + kTile, step.width) - left;
  for (int i = int(threadIdx.x); i < s.channels * rows * columns; i += kBlock) {
    const int line = i / columns, channel = line / rows;
    const int row = top + line - channel * rows, column = left + i - line * columns;
    run(channel, row, column, small_of(s, step, sample, channel) + int64_t(row) * step.width + column);
  }
}

// The smooth image that sharpness blends with.
__device__ __forceinline__ float smooth(const float* pixel) {
  const auto column = [=](int k) { return (pixel[k - kPitch] + pixel[k]) + pixel[k + kPitch]; };
  return smoothed((column(-1) + column(1)) + column(0), pixel[0]);
}

__device__ __forceinline__ bool on_border(const Stage& s, int y, int x) {
  return y == 0 || x == 0 || y == s.height - 1 || x == s.width - 1;
}

}  // namespace cuda
}  // namespace deal
