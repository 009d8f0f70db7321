// The backward pass of a degradation mixture. As its linear operations are, the gradient with what they make is the
// image with what they pass on.
#include "mixture_plan.h"

namespace deal {
namespace cuda {
namespace {

constexpr int kParts = 8;  // operations of which a block adds up at once what its threads have
constexpr int kThreadsOfPart = kBlock / kParts;
constexpr int kSoft = kTile + 2;  // of a side: pixels whose gradient sharpness spreads to those of the tile
constexpr int kRun = 4;           // rows of a column that a thread blurs at once
constexpr int kBytesOfParts = kParts * kBlock * int(sizeof(float));
constexpr int kBytesOfRows = kSoft * kPitch * int(sizeof(float)) / kBlock * kBlock + kBlock;

int bytes_of_thread(int channels) {
  return (kBytesOfParts + kBytesOfRows + 2 * channels * kPlane * int(sizeof(float))) / kBlock;
}

// Where in its window the first of the largest values is, or the last NaN.
__device__ __forceinline__ int place_of_largest(const Stage& s, const Step& step, int64_t window) {
  float best = value_at(s.image, window);
  int found = 0;
  for (int y = 0; y < step.factor; ++y)
    for (int x = 0; x < step.factor; ++x) {
      const float value = value_at(s.image, window + int64_t(y) * s.width + x);
      if (!(value > best || value != value)) continue;
      best = value;
      found = y * step.factor + x;
    }
  return found;
}

// What a pixel of the small image counts in one of the large.
__device__ __forceinline__ float share_of(int at, const Between<float>& place) {
  return place.low == place.high ? 1.0f : place.low == at ? 1.0f - place.share : place.share;
}

// The gradient of a pixel of a small image; `offset` is to be added to all of the large one.
__device__ __forceinline__ float small_gradient(const Stage& s, const Step& step, int64_t plane, int row, int column,
                                                float offset) {
  const int top = row ? (row - 1) * step.factor : 0;
  float total = 0;
  for (int x = column ? (column - 1) * step.factor : 0; x < s.width; ++x) {
    const Between<float> across = between(x, step.columns, step.width);
    if (across.low > column) break;
    if (across.high < column) continue;
    float down = 0;
    for (int y = top; y < s.height; ++y) {
      const Between<float> place = between(y, step.rows, step.height);
      if (place.low > row) break;
      if (place.high >= row) down += (value_at(s.grad, plane + int64_t(y) * s.width + x) + offset) * share_of(row, place);
    }
    total += down * share_of(column, across);
  }
  return total;
}

__device__ __forceinline__ float offset_of(const Stage& s, int channel, double through) {
  return float(through * double(gray_share<float>(channel, s.channels)));
}

__global__ void __launch_bounds__(kBlock) look_back(const Stage s) {
  const Share share(s);
  const double through = mean_of_blocks(s, s.grad.through, share.sample);
  double gray = 0;
  for (int tile = share.begin; tile < share.end; ++tile) {
    const Spot at(s, tile);
    if (s.contrast) gray += sum_of_gray(s, share.sample, at);
    for (int j = 0; j < s.operations; ++j) {
      const Step& step = s.step[j];
      if (!resizes(step.kind)) continue;
      each_small(s, step, share.sample, at, [&](int channel, int row, int column, int64_t place) {
        const int64_t plane = plane_of(s, share.sample, channel);
        s.small[place] = small_gradient(s, step, plane, row, column, offset_of(s, channel, through));
        if (step.kind == Degradation::max_pool)
          s.places[place] = place_of_largest(s, step, plane + (int64_t(row) * s.width + column) * step.factor);
      });
    }
  }
  leave_gray(s, share.slot, gray);
}

struct Place {
  int64_t sample;
  int channel;
  Spot at;
  float mean;
  const float *images, *grads;  // planes of all channels, at the thread's first pixel
  float* rows;                  // of blurs and of sharpness
};

// A thread's pixels of a channel: the image, the gradient of the stage's result, and that of the image.
struct Pixels {
  const float *image, *grad;
  int inside;  // the image
  float x[kRows], g[kRows], to[kRows];

  __device__ __forceinline__ Pixels(const Stage& s, const Place& p)
      : image(p.images + p.channel * kPlane), grad(p.grads + p.channel * kPlane) {
    inside = p.at.x < s.width ? s.height - p.at.y : 0;
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      x[k] = image[k * kPitch];
      g[k] = grad[k * kPitch];
      to[k] = 0;
    }
  }

  // Adds part(number) of each, of what a linear operation passes on, and returns the image with it.
  template <class Part>
  __device__ __forceinline__ float add_linear(float weight, const Part& part) {
    float dot = 0;
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      const float passes = part(k);
      if (k < inside) dot += x[k] * passes;
      to[k] = to[k] + passes * weight;
    }
    return dot;
  }

  // Likewise for an operation that makes value(number) of each, and returns the gradient with that.
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

// Along an axis what a place has of the gradient of a blur, also by reflection, where at(k) is that k places away and
// zero outside. `taps` are in memory, as those of reflections are picked.
template <class At>
__device__ __forceinline__ float unblurred(const At& at, const Taps<float>& taps, const Taps<float>& in_memory, int place,
                                           int count) {
  float total = blurred<float>(at, taps);
  const int last = count - 1 - place;
  if (place > 0)
    for (int from = 0; from + place <= kBlurReach; ++from) total += at(from - place) * in_memory.at[from + place];
  if (last > 0)
    for (int from = 0; from + last <= kBlurReach; ++from) total += at(last - from) * in_memory.at[from + last];
  return total;
}

__device__ __forceinline__ float add_blur(const Stage& s, const Place& p, const Taps<float>& in_memory, float weight,
                                          Pixels& pixels) {
  const Taps<float> taps = in_memory;
  const float* const plane = pixels.grad - p.at.in_tile() - kBlurReach;
  __syncthreads();
  for (int i = int(threadIdx.x); i < kPitch * kTile / kRun; i += kBlock) {
    const int run = i / kPitch, at = run * kRun * kPitch + i - run * kPitch;
    float found[kRun];
#pragma unroll
    for (int k = 0; k < kRun; ++k)
      found[k] = unblurred([&](int i) { return plane[at + (k + i) * kPitch]; }, taps, in_memory,
                           p.at.top + run * kRun + k, s.height);
#pragma unroll
    for (int k = 0; k < kRun; ++k) p.rows[at + k * kPitch] = found[k];
  }
  __syncthreads();
  const float* const rows = p.rows + p.at.in_tile() + kBlurReach;
  return pixels.add_linear(weight, [&](int k) {
    return unblurred([&](int i) { return rows[k * kPitch + i]; }, taps, in_memory, p.at.x, s.width);
  });
}

// Adds what the blends of sharpness pass on to the pixels around their own.
__device__ __forceinline__ void add_softened(const Stage& s, const Place& p, Pixels& pixels) {
  const float* const weights = s.weights + number_of(s, p.sample) * s.operations;
  const int origin = p.at.in_tile();
  __syncthreads();
  for (int i = int(threadIdx.x); i < kSoft * kSoft; i += kBlock) {
    const int row = i / kSoft - 1, column = i % kSoft - 1, y = p.at.top + row, x = p.at.left + column;
    float total = 0;
    if (y > 0 && x > 0 && y < s.height - 1 && x < s.width - 1) {
      const int at = row * kPitch + column - origin;
      const float own = pixels.image[at], flat = smooth(pixels.image + at), grad = pixels.grad[at];
      for (int j = 0; j < s.operations; ++j) {
        const Step& step = s.step[j];
        if (step.kind == Degradation::sharpness)
          total += passed(blended(own, flat, step.share, step.rest), grad) * (step.rest * weights[j]);
      }
    }
    p.rows[(row + 1) * kPitch + column + 1] = total;
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kRows; ++k) pixels.to[k] = smooth(p.rows + origin + (k + 1) * kPitch + 1);
}

__device__ __forceinline__ float add_sharpness(const Stage& s, const Step& step, const Place& p, float weight,
                                               Pixels& pixels) {
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

__device__ __forceinline__ float add_contrast(const Step& step, const Place& p, float weight, Pixels& pixels,
                                              double& through) {
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

__device__ __forceinline__ float add_saturation(const Stage& s, const Step& step, const Place& p, float weight,
                                                Pixels& pixels) {
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

__device__ __forceinline__ float add_pooled(const Step& step, const Place& p, int64_t plane, const Stage& s, float weight,
                                            Pixels& pixels) {
  const bool average = step.kind == Degradation::average_pool;
  const int column = p.at.x / step.factor, place = p.at.x - column * step.factor;
  int row = p.at.y / step.factor, place_row = p.at.y - row * step.factor;
  return pixels.add_linear(weight, [&](int) {
    float part = 0;
    if (column < step.width && row < step.height) {
      const int64_t at = step.small + (plane * step.height + row) * step.width + column;
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

constexpr int kReaders = 4;  // neighbours of the small image, among which are all that read a pixel of the large one

// What those neighbours take of a pixel.
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

__device__ __forceinline__ float add_bicubic(const Step& step, const Place& p, int64_t plane, const Stage& s, float weight,
                                             Pixels& pixels) {
  const float* const small = s.small + step.small + plane * step.height * step.width;
  const Readers across(p.at.x, s.width, step.width, step.wide, step.columns);
  return pixels.add_linear(weight, [&](int k) {
    const Readers down(p.at.y + k, s.height, step.height, step.tall, step.rows);
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
    return total;
  });
}

// Returns the gradient with what the operation makes, of the thread's pixels.
__device__ __forceinline__ float add_operation(const Stage& s, int j, const Place& p, Pixels& pixels, double& through) {
  const Step& step = s.step[j];
  const Spot& at = p.at;
  const int64_t number = number_of(s, p.sample), plane = p.sample * s.channels + p.channel;
  const float weight = s.weights[number * s.operations + j];
  const int x = within(at.x, s.width);
  switch (step.kind) {
    case Degradation::identity: return pixels.add_through(weight, [&](int k) { return pixels.x[k]; });
    case Degradation::contrast: return add_contrast(step, p, weight, pixels, through);
    case Degradation::saturation: return add_saturation(s, step, p, weight, pixels);
    case Degradation::sharpness: return add_sharpness(s, step, p, weight, pixels);
    case Degradation::gaussian_blur: return add_blur(s, p, s.taps[number * s.operations + j], weight, pixels);
    case Degradation::max_pool:
    case Degradation::average_pool: return add_pooled(step, p, plane, s, weight, pixels);
    case Degradation::bicubic: return add_bicubic(step, p, plane, s, weight, pixels);
    case Degradation::posterize:
      return pixels.add(
          weight, [&](int k) { return posterized(pixels.x[k], step.level); },
          [&](int k) { return step.straight_through ? passed(pixels.x[k], pixels.g[k]) : 0.0f; });
    case Degradation::column_stripes: {
      const float offset = step.values[number * s.width + x];
      return pixels.add_through(weight, [&](int k) { return pixels.x[k] + offset; });
    }
    case Degradation::row_stripes: {
      const float* const offsets = step.values + number * s.height;
      return pixels.add_through(weight, [&](int k) { return pixels.x[k] + offsets[within(at.y + k, s.height)]; });
    }
    case Degradation::column_gain: {
      const float gain = step.values[number * s.width + x];
      return pixels.add(
          weight, [&](int k) { return pixels.x[k] * gain; }, [&](int k) { return pixels.g[k] * gain; });
    }
    case Degradation::noise: {
      const float* const offsets = step.values + plane_of(s, number, p.channel) + x;
      return pixels.add_through(
          weight, [&](int k) { return pixels.x[k] + offsets[int64_t(within(at.y + k, s.height)) * s.width]; });
    }
  }
  return 0;
}

// Adds up what all threads left of some operations, and leaves it behind what was found before.
__device__ __forceinline__ void add_parts(float* parts, int count, bool first, double* to) {
  const int part = int(threadIdx.x) / kThreadsOfPart, lane = int(threadIdx.x) % kThreadsOfPart;
  double* const sums = static_cast<double*>(block_memory());
  double total = 0;
  __syncthreads();
  if (part < count)
    for (int i = lane; i < kBlock; i += kThreadsOfPart) total += double(parts[part * kBlock + i]);
  __syncthreads();
  sums[threadIdx.x] = total;
  __syncthreads();
  if (lane == 0 && part < count) {
    for (int i = 1; i < kThreadsOfPart; ++i) total += sums[threadIdx.x + i];
    to[part] = first ? total : to[part] + total;
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kBlock) mix_back(const Stage s) {
  const Share share(s);
  const float mean = float(mean_of_blocks(s, s.contrast ? s.sums : nullptr, share.sample));
  const double still = mean_of_blocks(s, s.grad.through, share.sample);
  char* const memory = static_cast<char*>(block_memory());
  float* const parts = reinterpret_cast<float*>(memory);
  float* const rows = reinterpret_cast<float*>(memory + kBytesOfParts);
  float* const images = reinterpret_cast<float*>(memory + kBytesOfParts + kBytesOfRows) + kOrigin;
  float* const grads = images + s.channels * kPlane;
  double* const dots = s.dots ? s.dots + share.slot * s.operations : nullptr;
  double through = 0;
  for (int tile = share.begin; tile < share.end; ++tile) {
    const Spot at(s, tile);
    __syncthreads();
    for (int c = 0; c < s.channels; ++c) {
      const int64_t plane = plane_of(s, share.sample, c);
      with_data(s.image.dtype, s.image.data, [&](auto* data) {
        read_tile(data + plane, s, at, s.sharpness ? 2 : 0, false, 0.0f, images + c * kPlane);
      });
      with_data(s.grad.dtype, s.grad.data, [&](auto* data) {
        read_tile(data + plane, s, at, s.blur ? kBlurReach : s.sharpness ? 1 : 0, false, offset_of(s, c, still),
                  grads + c * kPlane);
      });
    }
    __syncthreads();
    for (int c = 0; c < s.channels; ++c) {
      const Place place = {share.sample, c, at, mean, images + at.in_tile(), grads + at.in_tile(), rows};
      Pixels pixels(s, place);
      if (s.sharpness) add_softened(s, place, pixels);
      for (int j = 0; j < s.operations; ++j) {
        const int part = j % kParts;
        parts[part * kBlock + threadIdx.x] = add_operation(s, j, place, pixels, through);
        if (dots && (part == kParts - 1 || j == s.operations - 1))
          add_parts(parts, part + 1, c == 0 && tile == share.begin, dots + j - part);
      }
      if (!s.result) continue;
      const int64_t first = plane_of(s, share.sample, c) + int64_t(at.y) * s.width + at.x;
      with_data(s.result_dtype, s.result, [&](auto* data) { write_rows(data + first, s, at, pixels.to); });
    }
  }
  if (!s.through) return;
  through = block_sum(through);
  if (threadIdx.x == 0) s.through[share.slot] = through;
}

// Writes the gradient of x, to which something was still to be added.
__global__ void __launch_bounds__(kBlock) finish(const Stage s) {
  const Share share(s);
  const double through = mean_of_blocks(s, s.image.through, share.sample);
  for (int tile = share.begin; tile < share.end; ++tile) {
    const Spot at(s, tile);
    for (int c = 0; c < s.channels; ++c) {
      const int64_t first = plane_of(s, share.sample, c) + int64_t(at.y) * s.width + at.x;
      const float offset = offset_of(s, c, through);
      float values[kRows];
#pragma unroll
      for (int k = 0; k < kRows; ++k) {
        const bool there = at.x < s.width && at.y + k < s.height;
        values[k] = there ? value_at(s.image, first + int64_t(k) * s.width) + offset : 0.0f;
      }
      with_data(s.result_dtype, s.result, [&](auto* data) { write_rows(data + first, s, at, values); });
    }
  }
}

// Adds up the gradient of a weight; a block has one.
__global__ void __launch_bounds__(kBlock) weigh(const Stage s) {
  const int64_t number = blockIdx.x / s.operations, stage = number / s.batch, sample = number - stage * s.batch;
  const int64_t j = blockIdx.x - number * s.operations;
  double total = 0;
  for (int64_t i = threadIdx.x; i < s.blocks; i += kBlock) total += s.dots[(number * s.blocks + i) * s.operations + j];
  total = block_sum(total);
  if (threadIdx.x == 0) static_cast<float*>(s.result)[(sample * s.stages + stage) * s.operations + j] = float(total);
}

const void* stage_image(const MixtureBackward& call, int64_t stage) {
  if (stage == 0) return call.mixture.x;
  return static_cast<const char*>(call.inputs) + (stage - 1) * bytes_of_images(call.mixture);
}

}  // namespace

const char* mixture_backward(const MixtureBackward& call, void* workspace, int device, CUstream_st* stream) {
  const Mixture& a = call.mixture;
  if (const char* error = refused(a)) return error;
  Plan plan(a);
  Pieces pieces(workspace);
  const BackwardRoom room(plan, pieces);
  Stage& s = plan.all;
  const int64_t blocks = s.batch * s.blocks;
  const auto through = [&](int64_t stage) { return s.contrast ? room.through + stage * blocks : nullptr; };
  const char* error = prepare(s, device, stream);
  for (int64_t stage = a.stages - 1; stage >= 0 && !error; --stage) {
    const bool direct = stage == 0 && !(s.contrast && call.grad_x);
    s.stage = stage;
    s.image = {a.dtype, stage_image(call, stage), nullptr};
    if (stage == a.stages - 1) s.grad = {a.dtype, call.grad, nullptr};
    else s.grad = {DType::float32, room.grads[(stage + 1) % 2], through(stage + 1)};
    s.result_dtype = direct ? a.dtype : DType::float32;
    s.result = direct ? call.grad_x : room.grads[stage % 2];
    s.through = through(stage);
    s.dots = call.grad_weights ? room.dots + stage * blocks * s.operations : nullptr;
    if (s.looks) error = launch(look_back, s, plan.threads(), int(sizeof(double)), device, stream);
    if (!error) error = launch(mix_back, s, plan.threads(), bytes_of_thread(s.channels), device, stream);
  }
  if (!error && s.contrast && call.grad_x) {
    s.image = {DType::float32, room.grads[0], through(0)};
    s.result_dtype = a.dtype;
    s.result = call.grad_x;
    error = launch(finish, s, plan.threads(), int(sizeof(double)), device, stream);
  }
  if (error || !call.grad_weights) return error;
  s.dots = room.dots;
  s.result = call.grad_weights;
  return launch(weigh, s, s.stages * s.batch * s.operations * kBlock, int(sizeof(double)), device, stream);
}

}  // namespace cuda
}  // namespace deal
