// The adjoint of each op of a degradation mixture, for the pixels of a thread. For a linear op, the dot product of the
// gradient and the result of the op equals that of the adjoint and the image.
#pragma once
#include "stage.h"

namespace deal {
namespace cuda {
namespace {

// The pixels whose gradients sharpness spreads to a tile.
constexpr int kSoftRows = kTall + 2, kSoftColumns = kTile + 2;
constexpr int kRun = 4;  // rows of a column that a thread blurs at once

struct AdjointTile {
  int64_t sample;
  int channel;
  ThreadTile at;
  float mean;
  const float *images, *grads;  // planes of all channels, at the thread's first pixel
  float* rows;                  // for blurs and sharpness
};

// A thread's pixels of a channel: the image, the gradient of the result, and the gradient of the image.
struct AdjointPixels {
  const float *image, *grad;
  int inside;  // how many of them are inside of the image
  float x[kRows], g[kRows], to[kRows];

  __device__ __forceinline__ AdjointPixels(const Stage& s, const AdjointTile& p)
      : image(p.images + p.channel * kPlane), grad(p.grads + p.channel * kPlane) {
    inside = p.at.x < s.width ? s.height - p.at.y : 0;
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      x[k] = image[k * kPitch];
      g[k] = grad[k * kPitch];
      to[k] = 0;
    }
  }

  // For a linear op: adds part(k), its adjoint at pixel k, and returns the dot product with the image. Pixels without
  // weight are left out of it: they may be infinite.
  template <class Part>
  __device__ __forceinline__ float add_linear(float weight, const Part& part) {
    float dot = 0;
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      const float passes = part(k);
      if (k < inside && passes != 0) dot += x[k] * passes;
      to[k] = to[k] + passes * weight;
    }
    return dot;
  }

  // The same for an op whose result at pixel k is value(k): returns the dot product with the gradient.
  template <class Value, class Part>
  __device__ __forceinline__ float add(float weight, const Value& value, const Part& part) {
    float dot = 0;
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      if (k < inside) dot += g[k] * value(k);
      to[k] = to[k] + part(k) * weight;
    }
    return dot;
  }

  template <class Value>
  __device__ __forceinline__ float add_through(float weight, const Value& value) {
    return add(weight, value, [&](int k) { return g[k]; });
  }
};

// Calls run(offset, tap) for the gradients that contribute to a position of an axis by reflection.
template <int reach, class Run>
__device__ __forceinline__ void each_reflection(const Taps<float>& taps, int place, int count, const Run& run) {
  const int last = count - 1 - place;
#pragma unroll 1
  for (int from = 0; place > 0 && from + place <= reach; ++from) run(from - place, taps.at[from + place]);
#pragma unroll 1
  for (int from = 0; last > 0 && from + last <= reach; ++from) run(last - from, taps.at[from + last]);
}

// The adjoint of a wide blur along an axis, at a place on it. at(k) is the gradient k pixels away.
template <class At>
__device__ __forceinline__ float wide_adjoint(const Taps<float>& taps, int place, int count, const At& at) {
  float total = wide_blurred([&](int k) { return place + k >= 0 && place + k < count ? at(k) : 0.0f; }, taps);
  each_reflection<kWideReach>(taps, place, count, [&](int away, float tap) { total += at(away) * tap; });
  return total;
}

// `s.small` has the adjoint of the vertical blur.
__device__ __forceinline__ float add_wide_blur(const Stage& s, const Step& step, const AdjointTile& p,
                                               const Taps<float>& taps, float weight, AdjointPixels& pixels) {
  const int x = within(p.at.x, s.width);
  float* const parts = p.rows + p.at.in_tile();
  __syncthreads();
#pragma unroll 1
  for (int k = 0; k < kRows; ++k) {
    const int64_t line = int64_t(within(p.at.y + k, s.height)) * s.width + x;
    const float* const pixel = s.small + small_of(s, step, p.sample, p.channel) + line;
    parts[k * kPitch] = wide_adjoint(taps, x, s.width, [&](int away) { return pixel[away]; });
  }
  return pixels.add_linear(weight, [&](int k) { return parts[k * kPitch]; });
}

// The gradient must be zero outside of the image.
__device__ __forceinline__ float add_blur(const Stage& s, const AdjointTile& p, const Taps<float>& in_memory,
                                          float weight, AdjointPixels& pixels) {
  const Taps<float> taps = in_memory;
  const float* const plane = pixels.grad - p.at.in_tile() - kBlurReach;
  __syncthreads();
#pragma unroll 1
  for (int i = int(threadIdx.x); i < kPitch * kTall / kRun; i += kBlock) {
    const int run = i / kPitch, at = run * kRun * kPitch + i - run * kPitch, y = p.at.top + run * kRun;
    float found[kRun];
#pragma unroll
    for (int k = 0; k < kRun; ++k)
      found[k] = blurred<float, kBlurReach>([&](int i) { return plane[at + (k + i) * kPitch]; }, taps);
#pragma unroll
    for (int k = 0; k < kRun; ++k) {
      each_reflection<kBlurReach>(in_memory, y + k, s.height, [&](int away, float tap) {
        found[k] += plane[at + (k + away) * kPitch] * tap;
      });
      p.rows[at + k * kPitch] = found[k];
    }
  }
  __syncthreads();
  const float* const rows = p.rows + p.at.in_tile() + kBlurReach;
  float parts[kRows];
#pragma unroll
  for (int k = 0; k < kRows; ++k)
    parts[k] = blurred<float, kBlurReach>([&](int i) { return rows[k * kPitch + i]; }, taps);
  each_reflection<kBlurReach>(in_memory, p.at.x, s.width, [&](int away, float tap) {
#pragma unroll
    for (int k = 0; k < kRows; ++k) parts[k] += rows[k * kPitch + away] * tap;
  });
  return pixels.add_linear(weight, [&](int k) { return parts[k]; });
}

// Adds the contributions of sharpness through the smooth image.
__device__ __forceinline__ void add_softened(const Stage& s, const AdjointTile& p, AdjointPixels& pixels) {
  const float* const weights = s.weights + number_of(s, p.sample) * s.operations;
  const int origin = p.at.in_tile();
  __syncthreads();
  for (int i = int(threadIdx.x); i < kSoftRows * kSoftColumns; i += kBlock) {
    const int row = i / kSoftColumns - 1, column = i % kSoftColumns - 1, y = p.at.top + row, x = p.at.left + column;
    float total = 0;
    if (y > 0 && x > 0 && y < s.height - 1 && x < s.width - 1) {
      const int at = row * kPitch + column - origin;
      const float own = pixels.image[at], flat = smooth(pixels.image + at), grad = pixels.grad[at];
      for (int j = 0; j < s.operations; ++j) {
        const Step& step = s.step[j];
        if (step.kind == DegradationKind::sharpness)
          total += passed(blended(own, flat, step.share, step.rest), grad) * (step.rest * weights[j]);
      }
    }
    p.rows[(row + 1) * kPitch + column + 1] = total;
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kRows; ++k) pixels.to[k] = smooth(p.rows + origin + (k + 1) * kPitch + 1);
}

__device__ __forceinline__ float add_sharpness(const Stage& s, const Step& step, const AdjointTile& p, float weight,
                                               AdjointPixels& pixels) {
  float dot = 0;
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    const bool border = on_border(s, p.at.y + k, p.at.x);
    const float flat = border ? pixels.x[k] : smooth(pixels.image + k * kPitch);
    const float blend = blended(pixels.x[k], flat, step.share, step.rest), pass = passed(blend, pixels.g[k]);
    if (k < pixels.inside) dot += pixels.g[k] * clamped(blend);
    pixels.to[k] += pass * (step.share * weight);
    if (border) pixels.to[k] += pass * (step.rest * weight);
  }
  return dot;
}

__device__ __forceinline__ float add_contrast(const Step& step, const AdjointTile& p, float weight,
                                              AdjointPixels& pixels, double& through) {
  float passes = 0;
  const float dot = pixels.add(
      step.share * weight, [&](int k) { return clamped(blended(pixels.x[k], p.mean, step.share, step.rest)); },
      [&](int k) {
        const float pass = passed(blended(pixels.x[k], p.mean, step.share, step.rest), pixels.g[k]);
        if (k < pixels.inside) passes += pass;
        return pass;
      });
  through += double(step.rest) * double(weight) * double(passes);
  return dot;
}

__device__ __forceinline__ float add_saturation(const Stage& s, const Step& step, const AdjointTile& p, float weight,
                                                AdjointPixels& pixels) {
  const float own = step.share * weight, other = step.rest * weight, share = gray_share<float>(p.channel, s.channels);
  float dot = 0;
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    const float *const image = p.images + k * kPitch, *const grad = p.grads + k * kPitch;
    const float flat = gray(image[0], image[kPlane], image[2 * kPlane]);
    float passes = 0;
#pragma unroll
    for (int c = 0; c < 3; ++c)
      passes += passed(blended(image[c * kPlane], flat, step.share, step.rest), grad[c * kPlane]) * other;
    const float blend = blended(pixels.x[k], flat, step.share, step.rest);
    if (k < pixels.inside) dot += pixels.g[k] * clamped(blend);
    pixels.to[k] += passed(blend, pixels.g[k]) * own;
    pixels.to[k] += passes * share;
  }
  return dot;
}

__device__ __forceinline__ float add_pooled(const Stage& s, const Step& step, const AdjointTile& p, float weight,
                                            AdjointPixels& pixels) {
  const bool average = step.kind == DegradationKind::average_pool_resize;
  const int64_t small = small_of(s, step, p.sample, p.channel);
  const int column = p.at.x / step.factor, place = p.at.x - column * step.factor;
  int row = p.at.y / step.factor, place_row = p.at.y - row * step.factor;
  return pixels.add_linear(weight, [&](int) {
    float part = 0;
    if (column < step.width && row < step.height) {
      const int64_t at = small + int64_t(row) * step.width + column;
      if (average) part = s.small[at] * step.level;
      else if (s.places[at] == place_row * step.factor + place) part = s.small[at];
    }
    if (++place_row == step.factor) {
      place_row = 0;
      ++row;
    }
    return part;
  });
}

constexpr int kReaders = 4;  // neighbouring small pixels that include all that depend on one pixel

// The weights of a pixel in those small pixels.
struct Readers {
  int first;
  float weight[kReaders];

  __device__ __forceinline__ Readers(int at, int count, int small, float scale, float inverse)
      : first(int(floorf((float(at) - 2.5f) * inverse - 0.5f))) {
#pragma unroll
    for (int i = 0; i < kReaders; ++i) {
      weight[i] = 0;
      if (first + i < 0 || first + i >= small) continue;
      const Cubic<float> reads = cubic(first + i, scale);
#pragma unroll
      for (int k = 0; k < 4; ++k)
        if (within(int(reads.first) + k, count) == at) weight[i] += reads.weight[k];
    }
  }
};

__device__ __forceinline__ float add_bicubic(const Stage& s, const Step& step, const AdjointTile& p, float weight,
                                             AdjointPixels& pixels) {
  const float* const small = s.small + small_of(s, step, p.sample, p.channel);
  const Readers across(p.at.x, s.width, step.width, step.column_spacing, step.column_scale);
  float* const parts = p.rows + p.at.in_tile();
  __syncthreads();
#pragma unroll 1
  for (int k = 0; k < kRows; ++k) {
    const Readers down(p.at.y + k, s.height, step.height, step.row_spacing, step.row_scale);
    float total = 0;
#pragma unroll
    for (int i = 0; i < kReaders; ++i) {
      if (down.weight[i] == 0) continue;
      const float* const row = small + int64_t(down.first + i) * step.width + across.first;
      float part = 0;
#pragma unroll
      for (int j = 0; j < kReaders; ++j)
        if (across.weight[j] != 0) part += row[j] * across.weight[j];
      total += part * down.weight[i];
    }
    parts[k * kPitch] = total;
  }
  return pixels.add_linear(weight, [&](int k) { return parts[k * kPitch]; });
}

// Adds the adjoint of an op. Returns the dot product of the gradient and the result of the op, of the thread's pixels.
__device__ __forceinline__ float add_operation(const Stage& s, int j, const AdjointTile& p, AdjointPixels& pixels,
                                               double& through) {
  const Step& step = s.step[j];
  const ThreadTile& at = p.at;
  const int64_t number = number_of(s, p.sample);
  const float weight = s.weights[number * s.operations + j];
  switch (step.kind) {
    case DegradationKind::identity: return pixels.add_through(weight, [&](int k) { return pixels.x[k]; });
    case DegradationKind::contrast: return add_contrast(step, p, weight, pixels, through);
    case DegradationKind::saturation: return add_saturation(s, step, p, weight, pixels);
    case DegradationKind::sharpness: return add_sharpness(s, step, p, weight, pixels);
    case DegradationKind::gaussian_blur: return add_blur(s, p, s.taps[number * s.operations + j], weight, pixels);
    case DegradationKind::wide_blur:
      return add_wide_blur(s, step, p, s.taps[number * s.operations + j], weight, pixels);
    case DegradationKind::max_pool_resize:
    case DegradationKind::average_pool_resize: return add_pooled(s, step, p, weight, pixels);
    case DegradationKind::bicubic_resize: return add_bicubic(s, step, p, weight, pixels);
    case DegradationKind::posterize:
      return pixels.add(
          weight, [&](int k) { return posterized(pixels.x[k], step.level); },
          [&](int k) { return step.straight_through ? passed(pixels.x[k], pixels.g[k]) : 0.0f; });
    case DegradationKind::quantise:
      return pixels.add(
          weight, [&](int k) { return quantised(pixels.x[k], step.level); },
          [&](int k) { return passed(pixels.x[k], pixels.g[k]); });
    case DegradationKind::clip:
      return pixels.add(
          weight, [&](int k) { return clamped(pixels.x[k]); }, [&](int k) { return passed(pixels.x[k], pixels.g[k]); });
    case DegradationKind::tone: {
      const float gain = step.values[number * 2], offset = step.values[number * 2 + 1];
      return pixels.add(
          weight, [&](int k) { return pixels.x[k] * gain + offset; }, [&](int k) { return pixels.g[k] * gain; });
    }
    case DegradationKind::stripe:
    case DegradationKind::row_stripe:
    case DegradationKind::pattern:
    case DegradationKind::noise: {
      const ThreadValues values(s, step, number, p.channel, at);
      return pixels.add_through(weight, [&](int k) { return pixels.x[k] + values(k); });
    }
    case DegradationKind::gain:
    case DegradationKind::row_gain: {
      const ThreadValues values(s, step, number, p.channel, at);
      return pixels.add(
          weight, [&](int k) { return pixels.x[k] * values(k); }, [&](int k) { return pixels.g[k] * values(k); });
    }
    case DegradationKind::dead: {
      const ThreadValues values(s, step, number, p.channel, at);
      return pixels.add(
          weight, [&](int k) { return replaced(pixels.x[k], values(k)); },
          [&](int k) { return values(k) <= values(k) ? 0.0f : pixels.g[k]; });
    }
  }
  return 0;
}

}  // namespace
}  // namespace cuda
}  // namespace deal
