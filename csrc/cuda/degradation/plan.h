// What the host prepares for a call of the degradation mixture: the arguments of its kernels, and its workspace.
#pragma once
#include "../common/kernels.h"
#include "stage.h"

namespace deal {
namespace cuda {

// Launches what is computed once for all stages.
const char* prepare(const Stage&, CUstream_st*);

namespace {

constexpr const char* kTooMany = "the CUDA kernels take a mixture of at most 48 operations";
constexpr const char* kNoDouble = "the CUDA kernels have no float64";

inline const char* refused(const DegradationInput& a) {
  return a.dtype == DType::float64 ? kNoDouble : a.op_count > kMostOperations ? kTooMany : nullptr;
}

// The arguments of the kernels, except for what differs from stage to stage.
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
      Step& step = all.step[j];
      plan_op(a, a.ops[j], step);
      all.taps_needed = all.taps_needed || step.reach > 0;
      if (!has_small(step.kind)) continue;
      step.small = small;
      small += a.batch * a.channels * step.height * step.width;
    }
    all.contrast = contains(all.step, all.operations, DegradationKind::contrast);
    all.sharpness = contains(all.step, all.operations, DegradationKind::sharpness);
    all.blur = contains(all.step, all.operations, DegradationKind::gaussian_blur);
    all.looks = all.contrast || small > 0;
  }

  int64_t threads() const { return all.batch * all.blocks * kBlock; }
};

// Divides a workspace into pieces. Without memory it only counts their bytes.
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

inline void take_workspace(Stage& all, int64_t small, Pieces& pieces) {
  all.sums = pieces.take<double>(all.batch * all.blocks);
  all.taps = pieces.take<Taps<float>>(all.batch * all.stages * all.operations);
  all.small = pieces.take<float>(small);
}

// The backward pass' share of the workspace: sums of each stage, and two buffers for the gradients of images.
struct BackwardWorkspace {
  double *through, *dots;
  float* grads[2];

  BackwardWorkspace(Plan& plan, Pieces& pieces) {
    Stage& all = plan.all;
    take_workspace(all, plan.small, pieces);
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
