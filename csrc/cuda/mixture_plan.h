// How a call of a degradation mixture is laid out: its operations for the kernels, and its workspace.
#pragma once
#include "kernels.h"
#include "mixture.h"

namespace deal {
namespace cuda {

// What is done once for all stages.
const char* prepare(const Stage&, int device, CUstream_st*);

namespace {

constexpr const char* kTooMany = "the CUDA kernels take a mixture of at most 48 operations";
constexpr const char* kNoDouble = "the CUDA kernels have no float64";

inline const char* refused(const DegradationInput& a) {
  return a.dtype == DType::float64 ? kNoDouble : a.op_count > kMostOperations ? kTooMany : nullptr;
}

inline Step step_of(const DegradationInput& a, const DegradationOp& operation) {
  Step step = {};
  step.kind = operation.kind;
  if ((step.kind == DegradationKind::saturation && a.channels != 3) ||
      (step.kind == DegradationKind::sharpness && (a.height <= 2 || a.width <= 2)))
    step.kind = DegradationKind::identity;
  step.share = float(operation.strength);
  step.rest = float(1 - operation.strength);
  if (step.kind == DegradationKind::posterize) step.level = posterize_step<float>(int(operation.strength));
  step.straight_through = operation.straight_through;
  step.values = static_cast<const float*>(operation.values);
  return step;
}

// The small image of a resize, which begins behind those of the operations before it; returns where it ends.
inline int64_t add_small(const DegradationInput& a, const DegradationOp& operation, int64_t small, Step& step) {
  step.factor = int(operation.strength);
  step.height = int(a.height) / step.factor;
  step.width = int(a.width) / step.factor;
  step.rows = float(step.height) / float(a.height);
  step.columns = float(step.width) / float(a.width);
  step.tall = float(a.height) / float(step.height);
  step.wide = float(a.width) / float(step.width);
  step.level = 1.0f / float(step.factor * step.factor);
  step.small = small;
  return small + a.batch * a.channels * step.height * step.width;
}

// A mixture for the kernels, but for what differs from stage to stage.
struct Plan {
  Stage all = {};
  int64_t small = 0;  // pixels of all small images

  explicit Plan(const DegradationInput& a) {
    all.batch = a.batch;
    all.stages = a.stages;
    all.channels = int(a.channels);
    all.height = int(a.height);
    all.width = int(a.width);
    all.weights = static_cast<const float*>(a.weights);
    all.tiles_across = (all.width + kTile - 1) / kTile;
    all.tiles = (all.height + kTall - 1) / kTall * all.tiles_across;
    all.tiles_of_block = (all.tiles + kMostBlocks - 1) / kMostBlocks;
    all.blocks = (all.tiles + all.tiles_of_block - 1) / all.tiles_of_block;
    all.operations = a.op_count < kMostOperations ? a.op_count : kMostOperations;
    for (int j = 0; j < all.operations; ++j) {
      Step& step = all.step[j] = step_of(a, a.ops[j]);
      const bool resized = step.kind == DegradationKind::max_pool_resize || step.kind == DegradationKind::average_pool_resize ||
                           step.kind == DegradationKind::bicubic_resize;
      if (resized) small = add_small(a, a.ops[j], small, step);
      all.contrast = all.contrast || step.kind == DegradationKind::contrast;
      all.sharpness = all.sharpness || step.kind == DegradationKind::sharpness;
      all.blur = all.blur || step.kind == DegradationKind::gaussian_blur;
      all.looks = all.looks || resized || all.contrast;
    }
  }

  int64_t threads() const { return all.batch * all.blocks * kBlock; }
};

// Takes pieces of a workspace one after the other; without one it only counts.
class Pieces {
 public:
  explicit Pieces(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <class T>
  T* take(int64_t count) {
    T* const piece = memory_ ? reinterpret_cast<T*>(memory_ + bytes) : nullptr;
    bytes += (count * int64_t(sizeof(T)) + 255) / 256 * 256;
    return piece;
  }

  int64_t bytes = 0;

 private:
  char* const memory_;
};

inline int64_t bytes_of_images(const DegradationInput& a) {
  return a.batch * a.channels * a.height * a.width * (a.dtype == DType::float32 ? 4 : 2);
}

inline void take_room(Stage& all, int64_t small, Pieces& pieces) {
  all.sums = pieces.take<double>(all.batch * all.blocks);
  all.taps = pieces.take<Taps<float>>(all.batch * all.stages * all.operations);
  all.small = pieces.take<float>(small);
}

// Of the backward pass: what stages leave each, and the gradients of their images, in turn in two places.
struct BackwardRoom {
  double *through, *dots;
  float* grads[2];

  BackwardRoom(Plan& plan, Pieces& pieces) {
    Stage& all = plan.all;
    take_room(all, plan.small, pieces);
    const int64_t blocks = all.stages * all.batch * all.blocks;
    all.places = pieces.take<int>(plan.small);
    through = pieces.take<double>(blocks);
    dots = pieces.take<double>(blocks * all.operations);
    for (float*& grad : grads) grad = pieces.take<float>(all.batch * all.channels * int64_t(all.height) * all.width);
  }
};

}  // namespace
}  // namespace cuda
}  // namespace deal
