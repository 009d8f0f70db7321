// The forward pass of a degradation mixture.
#include "plan.h"

namespace deal {
namespace cuda {
namespace {

constexpr int kRun = 4;  // rows of a column that a thread blurs at once
constexpr int kBytesOfSums = kBlock * int(sizeof(double)), kBytesOfRows = kTall * kPitch * int(sizeof(float));

int bytes_of_thread(int channels) {
  return (kBytesOfSums + kBytesOfRows + channels * kPlane * int(sizeof(float))) / kBlock;
}

// Computes the windows of the blurs of all samples and stages.
__global__ void __launch_bounds__(kBlock) find_taps(const Stage s) {
  const int64_t number = first_of_thread(1);
  if (number >= s.batch * s.stages) return;
  for (int j = 0; j < s.operations; ++j)
    if (s.step[j].reach)
      gaussian(double(s.step[j].values[number]), s.step[j].reach, s.taps[number * s.operations + j]);
}

// The maximum of a window; NaN if any value is NaN.
__device__ __forceinline__ float largest(const Stage& s, const Step& step, int64_t window) {
  float best = value_at(s.image, window);
  for (int y = 0; y < step.factor; ++y)
    for (int x = 0; x < step.factor; ++x) best = larger(best, value_at(s.image, window + int64_t(y) * s.width + x));
  return best;
}

__device__ __forceinline__ float average(const Stage& s, const Step& step, int64_t window) {
  float total = 0;
  for (int x = 0; x < step.factor; ++x) {
    float column = 0;
    for (int y = 0; y < step.factor; ++y) column += value_at(s.image, window + int64_t(y) * s.width + x);
    total += column;
  }
  return total / float(step.factor * step.factor);
}

__device__ __forceinline__ float bicubic(const Stage& s, const Step& step, int64_t plane, int row, int column) {
  const Cubic<float> down = cubic(row, step.row_spacing);
  const Cubic<float> across = cubic(column, step.column_spacing);
  float parts[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int64_t from = plane + within(int(across.first) + j, s.width);
    float total = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      total += value_at(s.image, from + int64_t(within(int(down.first) + i, s.height)) * s.width) * down.weight[i];
    parts[j] = total * across.weight[j];
  }
  return (parts[0] + parts[1]) + (parts[2] + parts[3]);
}

__device__ __forceinline__ float wide_blur_down(const Stage& s, const Taps<float>& taps, int64_t plane, int row,
                                                int column) {
  return wide_blurred(
      [&](int k) { return value_at(s.image, plane + reflected<int64_t>(row + k, s.height) * s.width + column); }, taps);
}

__global__ void __launch_bounds__(kBlock, 8) look(const Stage s) {
  const BlockTiles block(s);
  const auto shrink = [&](int64_t plane, int j, int row, int column) {
    const Step& step = s.step[j];
    if (step.kind == DegradationKind::wide_blur)
      return wide_blur_down(s, s.taps[number_of(s, block.sample) * s.operations + j], plane, row, column);
    if (step.kind == DegradationKind::bicubic_resize) return bicubic(s, step, plane, row, column);
    const int64_t window = plane + (int64_t(row) * s.width + column) * step.factor;
    return step.kind == DegradationKind::max_pool_resize ? largest(s, step, window) : average(s, step, window);
  };
  double gray = 0;
  for (int tile = block.begin; tile < block.end; ++tile) {
    const ThreadTile at(s, tile);
    if (s.contrast) gray += sum_of_gray(s, block.sample, at);
    for (int j = 0; j < s.operations; ++j) {
      const Step& step = s.step[j];
      if (!has_small(step.kind)) continue;
      each_small(s, step, block.sample, at, [&](int channel, int row, int column, int64_t place) {
        s.small[place] = shrink(plane_of(s, block.sample, channel), j, row, column);
      });
    }
  }
  leave_gray(s, block.slot, gray);
}

// A thread's pixels of a channel: their address in shared memory, their values, and the result.
struct ThreadPixels {
  const float* tile;
  float x[kRows], to[kRows];

  __device__ __forceinline__ explicit ThreadPixels(const float* tile) : tile(tile) {
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      x[k] = tile[k * kPitch];
      to[k] = 0;
    }
  }

  // Adds weight * body(value, index) to the result of each pixel.
  template <class Body>
  __device__ __forceinline__ void add(float weight, const Body& body) {
#pragma unroll
    for (int k = 0; k < kRows; ++k) to[k] = to[k] + body(x[k], k) * weight;
  }
};

// Blurs the columns of a tile and its surroundings vertically.
__device__ __forceinline__ void blur_down(const float* plane, const Taps<float>& taps, float* rows) {
  for (int i = int(threadIdx.x); i < kPitch * kTall / kRun; i += kBlock) {
    const int run = i / kPitch, at = run * kRun * kPitch + i - run * kPitch;
    float window[kRun + 2 * kBlurReach];
#pragma unroll
    for (int k = 0; k < kRun + 2 * kBlurReach; ++k) window[k] = plane[at + k * kPitch];
#pragma unroll
    for (int k = 0; k < kRun; ++k)
      rows[at + k * kPitch] = blurred<float, kBlurReach>([&](int i) { return window[k + kBlurReach + i]; }, taps);
  }
}

__device__ __forceinline__ void add_resized(const Step& step, const float* small, const ThreadTile& at, float weight,
                                            ThreadPixels& pixels) {
  const Between<float> across = between(at.x, step.column_scale, step.width);
  const auto row = [&](int64_t y) {
    const float* const from = small + y * step.width;
    return from[across.low] * (1.0f - across.share) + from[across.high] * across.share;
  };
  pixels.add(weight, [&](float, int k) {
    const Between<float> down = between(at.y + k, step.row_scale, step.height);
    return row(down.low) * (1.0f - down.share) + row(down.high) * down.share;
  });
}

// The horizontal blur of an image that is blurred vertically.
__device__ __forceinline__ void add_wide_blur(const Stage& s, const float* plane, const Taps<float>& taps,
                                              const ThreadTile& at, float weight, float* scratch,
                                              ThreadPixels& pixels) {
  const int x = within(at.x, s.width);
  __syncthreads();
#pragma unroll 1
  for (int k = 0; k < kRows; ++k) {
    const float* const row = plane + int64_t(within(at.y + k, s.height)) * s.width;
    scratch[k * kPitch] = wide_blurred([&](int i) { return row[reflected<int64_t>(x + i, s.width)]; }, taps);
  }
  pixels.add(weight, [&](float, int k) { return scratch[k * kPitch]; });
}

struct ChannelTile {
  int64_t sample;
  int channel;
  ThreadTile at;
  float mean;
  const float* planes;  // of all channels, at the thread's first pixel
  float* rows;          // for blurs
};

__device__ __forceinline__ void add_operation(const Stage& s, int j, const ChannelTile& p, ThreadPixels& pixels) {
  const Step& step = s.step[j];
  const ThreadTile& at = p.at;
  const int64_t number = number_of(s, p.sample);
  const float weight = s.weights[number * s.operations + j], share = step.share, rest = step.rest;
  switch (step.kind) {
    case DegradationKind::identity: return pixels.add(weight, [](float v, int) { return v; });
    case DegradationKind::contrast:
      return pixels.add(weight, [&](float v, int) { return clamped(blended(v, p.mean, share, rest)); });
    case DegradationKind::saturation:
      return pixels.add(weight, [&](float v, int k) {
        const float* const red = p.planes + k * kPitch;
        return clamped(blended(v, gray(red[0], red[kPlane], red[2 * kPlane]), share, rest));
      });
    case DegradationKind::sharpness:
      return pixels.add(weight, [&](float v, int k) {
        const float flat = on_border(s, at.y + k, at.x) ? v : smooth(pixels.tile + k * kPitch);
        return clamped(blended(v, flat, share, rest));
      });
    case DegradationKind::gaussian_blur: {
      const Taps<float> taps = s.taps[number * s.operations + j];
      __syncthreads();
      blur_down(pixels.tile - at.in_tile() - kOrigin, taps, p.rows);
      __syncthreads();
      const float* const rows = p.rows + at.in_tile() + kBlurReach;
      return pixels.add(weight, [&](float, int k) {
        return blurred<float, kBlurReach>([&](int i) { return rows[k * kPitch + i]; }, taps);
      });
    }
    case DegradationKind::wide_blur:
      return add_wide_blur(s, s.small + small_of(s, step, p.sample, p.channel), s.taps[number * s.operations + j], at,
                           weight, p.rows + at.in_tile(), pixels);
    case DegradationKind::max_pool_resize:
    case DegradationKind::average_pool_resize:
    case DegradationKind::bicubic_resize:
      return add_resized(step, s.small + small_of(s, step, p.sample, p.channel), at, weight, pixels);
    case DegradationKind::posterize: return pixels.add(weight, [&](float v, int) { return posterized(v, step.level); });
    case DegradationKind::quantise: return pixels.add(weight, [&](float v, int) { return quantised(v, step.level); });
    case DegradationKind::clip: return pixels.add(weight, [](float v, int) { return clamped(v); });
    case DegradationKind::tone: {
      const float gain = step.values[number * 2], offset = step.values[number * 2 + 1];
      return pixels.add(weight, [&](float v, int) { return v * gain + offset; });
    }
    case DegradationKind::stripe:
    case DegradationKind::row_stripe:
    case DegradationKind::pattern:
    case DegradationKind::noise: {
      const ThreadValues values(s, step, number, p.channel, at);
      return pixels.add(weight, [&](float v, int k) { return v + values(k); });
    }
    case DegradationKind::gain:
    case DegradationKind::row_gain: {
      const ThreadValues values(s, step, number, p.channel, at);
      return pixels.add(weight, [&](float v, int k) { return v * values(k); });
    }
    case DegradationKind::dead: {
      const ThreadValues values(s, step, number, p.channel, at);
      return pixels.add(weight, [&](float v, int k) { return replaced(v, values(k)); });
    }
  }
}

__global__ void __launch_bounds__(kBlock) mix(const Stage s) {
  const BlockTiles block(s);
  const float mean = float(mean_of_blocks(s, s.contrast ? s.sums : nullptr, block.sample));
  char* const memory = static_cast<char*>(block_memory());
  float* const rows = reinterpret_cast<float*>(memory + kBytesOfSums);
  float* const planes = reinterpret_cast<float*>(memory + kBytesOfSums + kBytesOfRows) + kOrigin;
  const int reach = s.blur ? kBlurReach : s.sharpness ? 1 : 0;
  for (int tile = block.begin; tile < block.end; ++tile) {
    const ThreadTile at(s, tile);
    __syncthreads();
    read_tiles(s, s.image, block.sample, at, {reach, true}, 0, planes);
    __syncthreads();
    for (int c = 0; c < s.channels; ++c) {
      ThreadPixels pixels(planes + c * kPlane + at.in_tile());
      const ChannelTile place = {block.sample, c, at, mean, planes + at.in_tile(), rows};
      for (int j = 0; j < s.operations; ++j) add_operation(s, j, place, pixels);
      const int64_t first = plane_of(s, block.sample, c) + int64_t(at.y) * s.width + at.x;
      with_data(s.result_dtype, s.result, [&](auto* data) { write_rows(data + first, s, at, pixels.to); });
    }
  }
}

const char* run_stage(const Stage& s, int64_t threads, CUstream_st* stream) {
  const char* const error = s.looks ? launch(look, s, threads, kBytesOfSums / kBlock, stream) : nullptr;
  return error ? error : launch(mix, s, threads, bytes_of_thread(s.channels), stream);
}

}  // namespace

const char* prepare(const Stage& s, CUstream_st* stream) {
  return s.taps_needed ? launch(find_taps, s, s.batch * s.stages, 0, stream) : nullptr;
}

int64_t workspace_bytes(const DegradationForward& a) {
  Plan plan(a);
  Pieces pieces(nullptr);
  take_workspace(plan.all, plan.small, pieces);
  pieces.take<char>(bytes_of_images(a));
  return pieces.bytes;
}

const char* degradation_forward(const DegradationForward& call, void* workspace, CUstream_st* stream) {
  const DegradationInput& a = call;
  if (const char* error = refused(a)) return error;
  Plan plan(a);
  Pieces pieces(workspace);
  take_workspace(plan.all, plan.small, pieces);
  const int64_t bytes = bytes_of_images(a);
  char* const between = pieces.take<char>(bytes);
  // Results of the stages are kept, or alternate between y and the workspace.
  const auto result = [&](int64_t stage) -> void* {
    if (stage == a.stages - 1) return call.y;
    if (call.inputs) return static_cast<char*>(call.inputs) + stage * bytes;
    return (a.stages - 1 - stage) % 2 ? between : call.y;
  };
  const void* image = a.x;
  const char* error = prepare(plan.all, stream);
  for (int64_t stage = 0; stage < a.stages && !error; ++stage) {
    Stage& s = plan.all;
    s.stage = stage;
    s.image = {a.dtype, image, nullptr};
    s.result_dtype = a.dtype;
    s.result = result(stage);
    error = run_stage(s, plan.threads(), stream);
    image = s.result;
  }
  return error;
}

}  // namespace cuda
}  // namespace deal
