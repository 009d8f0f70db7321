// The backward pass of a degradation mixture.
#include "adjoint.h"
#include "plan.h"

namespace deal {
namespace cuda {
namespace {

constexpr int kParts = 8;  // ops whose sums over threads a block computes at a time
constexpr int kThreadsOfPart = kBlock / kParts;
constexpr int kBytesOfParts = kParts * kBlock * int(sizeof(float));
constexpr int kBytesOfRows = kSoftRows * kPitch * int(sizeof(float)) / kBlock * kBlock + kBlock;

int bytes_of_thread(int channels) {
  return (kBytesOfParts + kBytesOfRows + 2 * channels * kPlane * int(sizeof(float))) / kBlock;
}

// The position of the maximum in its window: the first of equal values, or the last NaN.
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

// The weight of a small pixel in a large one.
__device__ __forceinline__ float share_of(int at, const Between<float>& place) {
  return place.low == place.high ? 1.0f : place.low == at ? 1.0f - place.share : place.share;
}

// The gradient of a small pixel. `offset` is added to the gradients of all large pixels.
__device__ __forceinline__ float small_gradient(const Stage& s, const Step& step, int64_t plane, int row, int column,
                                                float offset) {
  const int top = row ? (row - 1) * step.factor : 0;
  float total = 0;
  for (int x = column ? (column - 1) * step.factor : 0; x < s.width; ++x) {
    const Between<float> across = between(x, step.column_scale, step.width);
    if (across.low > column) break;
    if (across.high < column) continue;
    float down = 0;
    for (int y = top; y < s.height; ++y) {
      const Between<float> place = between(y, step.row_scale, step.height);
      if (place.low > row) break;
      if (place.high < row) continue;
      down += (value_at(s.grad, plane + int64_t(y) * s.width + x) + offset) * share_of(row, place);
    }
    total += down * share_of(column, across);
  }
  return total;
}

// The adjoint of a vertical wide blur, in a row of the column that begins at `top`.
__device__ __forceinline__ float wide_gradient(const Stage& s, int j, int64_t sample, int64_t top, int row,
                                               float offset) {
  const Taps<float>& taps = s.taps[number_of(s, sample) * s.operations + j];
  return wide_adjoint(taps, row, s.height, [&](int away) {
    return value_at(s.grad, top + int64_t(row + away) * s.width) + offset;
  });
}

__global__ void __launch_bounds__(kBlock, 8) look_back(const Stage s) {
  const BlockTiles block(s);
  const double through = mean_of_blocks(s, s.grad.through, block.sample);
  double gray = 0;
  for (int tile = block.begin; tile < block.end; ++tile) {
    const ThreadTile at(s, tile);
    if (s.contrast) gray += sum_of_gray(s, block.sample, at);
    for (int j = 0; j < s.operations; ++j) {
      const Step& step = s.step[j];
      if (!has_small(step.kind)) continue;
      each_small(s, step, block.sample, at, [&](int channel, int row, int column, int64_t place) {
        const int64_t plane = plane_of(s, block.sample, channel);
        const float offset = offset_of(s, channel, through);
        if (step.kind == DegradationKind::wide_blur)
          s.small[place] = wide_gradient(s, j, block.sample, plane + column, row, offset);
        else s.small[place] = small_gradient(s, step, plane, row, column, offset);
        if (step.kind == DegradationKind::max_pool_resize)
          s.places[place] = place_of_largest(s, step, plane + (int64_t(row) * s.width + column) * step.factor);
      });
    }
  }
  leave_gray(s, block.slot, gray);
}

// Sums the parts of all threads for some ops and adds them to the block's sums so far.
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

__global__ void __launch_bounds__(kBlock, 3) mix_back(const Stage s) {
  const BlockTiles block(s);
  const float mean = float(mean_of_blocks(s, s.contrast ? s.sums : nullptr, block.sample));
  const double still = mean_of_blocks(s, s.grad.through, block.sample);
  char* const memory = static_cast<char*>(block_memory());
  float* const parts = reinterpret_cast<float*>(memory);
  float* const rows = reinterpret_cast<float*>(memory + kBytesOfParts);
  float* const images = reinterpret_cast<float*>(memory + kBytesOfParts + kBytesOfRows) + kOrigin;
  float* const grads = images + s.channels * kPlane;
  double* const dots = s.dots ? s.dots + block.slot * s.operations : nullptr;
  const int reach = s.blur ? kBlurReach : s.sharpness ? 1 : 0;
  double through = 0;
  for (int tile = block.begin; tile < block.end; ++tile) {
    const ThreadTile at(s, tile);
    __syncthreads();
#pragma unroll 1
    for (int i = 0; i < 2; ++i)
      read_tiles(s, i ? s.grad : s.image, block.sample, at, {i ? reach : s.sharpness ? 2 : 0, false}, i ? still : 0,
                 i ? grads : images);
    __syncthreads();
    for (int c = 0; c < s.channels; ++c) {
      const AdjointTile place = {block.sample, c, at, mean, images + at.in_tile(), grads + at.in_tile(), rows};
      AdjointPixels pixels(s, place);
      if (s.sharpness) add_softened(s, place, pixels);
      for (int j = 0; j < s.operations; ++j) {
        const int part = j % kParts;
        parts[part * kBlock + threadIdx.x] = add_operation(s, j, place, pixels, through);
        if (dots && (part == kParts - 1 || j == s.operations - 1))
          add_parts(parts, part + 1, c == 0 && tile == block.begin, dots + j - part);
      }
      if (!s.result) continue;
      const int64_t first = plane_of(s, block.sample, c) + int64_t(at.y) * s.width + at.x;
      with_data(s.result_dtype, s.result, [&](auto* data) { write_rows(data + first, s, at, pixels.to); });
    }
  }
  if (!s.through) return;
  through = block_sum(through);
  if (threadIdx.x == 0) s.through[block.slot] = through;
}

// Writes the gradient of x, to which an offset must be added.
__global__ void __launch_bounds__(kBlock) finish(const Stage s) {
  const BlockTiles block(s);
  const double through = mean_of_blocks(s, s.image.through, block.sample);
  for (int tile = block.begin; tile < block.end; ++tile) {
    const ThreadTile at(s, tile);
    for (int c = 0; c < s.channels; ++c) {
      const int64_t first = plane_of(s, block.sample, c) + int64_t(at.y) * s.width + at.x;
      const float offset = offset_of(s, c, through);
#pragma unroll 1
      for (int k = 0; k < kRows && at.x < s.width && at.y + k < s.height; ++k) {
        const int64_t place = first + int64_t(k) * s.width;
        const float value = value_at(s.image, place) + offset;
        with_data(s.result_dtype, s.result, [&](auto* data) { narrow(value, data[place]); });
      }
    }
  }
}

// Sums the gradient of a weight. There is one block per weight.
__global__ void __launch_bounds__(kBlock) weigh(const Stage s) {
  const int64_t number = blockIdx.x / s.operations, stage = number / s.batch, sample = number - stage * s.batch;
  const int64_t j = blockIdx.x - number * s.operations;
  double total = 0;
  for (int64_t i = threadIdx.x; i < s.blocks; i += kBlock) total += s.dots[(number * s.blocks + i) * s.operations + j];
  total = block_sum(total);
  if (threadIdx.x == 0) static_cast<float*>(s.result)[(sample * s.stages + stage) * s.operations + j] = float(total);
}

const void* stage_image(const DegradationBackward& call, int64_t stage) {
  if (stage == 0) return call.x;
  return static_cast<const char*>(call.inputs) + (stage - 1) * bytes_of_images(call);
}

}  // namespace

int64_t workspace_bytes(const DegradationBackward& a) {
  Plan plan(a);
  Pieces pieces(nullptr);
  BackwardWorkspace(plan, pieces);
  return pieces.bytes;
}

const char* degradation_backward(const DegradationBackward& call, void* workspace, CUstream_st* stream) {
  const DegradationInput& a = call;
  if (const char* error = refused(a)) return error;
  Plan plan(a);
  Pieces pieces(workspace);
  const BackwardWorkspace scratch(plan, pieces);
  Stage& s = plan.all;
  const int64_t blocks = s.batch * s.blocks;
  const auto through = [&](int64_t stage) { return s.contrast ? scratch.through + stage * blocks : nullptr; };
  const char* error = prepare(s, stream);
  for (int64_t stage = a.stages - 1; stage >= 0 && !error; --stage) {
    const bool direct = stage == 0 && !(s.contrast && call.grad_x);
    s.stage = stage;
    s.image = {a.dtype, stage_image(call, stage), nullptr};
    if (stage == a.stages - 1) s.grad = {a.dtype, call.grad, nullptr};
    else s.grad = {DType::float32, scratch.grads[(stage + 1) % 2], through(stage + 1)};
    s.result_dtype = direct ? a.dtype : DType::float32;
    s.result = direct ? call.grad_x : scratch.grads[stage % 2];
    s.through = through(stage);
    s.dots = call.grad_weights ? scratch.dots + stage * blocks * s.operations : nullptr;
    if (s.looks) error = launch(look_back, s, plan.threads(), int(sizeof(double)), stream);
    if (!error) error = launch(mix_back, s, plan.threads(), bytes_of_thread(s.channels), stream);
  }
  if (!error && s.contrast && call.grad_x) {
    s.image = {DType::float32, scratch.grads[0], through(0)};
    s.result_dtype = a.dtype;
    s.result = call.grad_x;
    error = launch(finish, s, plan.threads(), int(sizeof(double)), stream);
  }
  if (error || !call.grad_weights) return error;
  s.dots = scratch.dots;
  s.result = call.grad_weights;
  return launch(weigh, s, s.stages * s.batch * s.operations * kBlock, int(sizeof(double)), stream);
}

}  // namespace cuda
}  // namespace deal
