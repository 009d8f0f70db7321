// The ops of a degradation mixture, prepared for the kernels. This is the same for all samples, stages and devices.
#pragma once
#include "../types.h"
#include "degradation.h"

namespace deal {

// An op, with its numbers in the type S of the computation.
template <class S>
struct PlannedOp {
  DegradationKind kind;  // identity if the op does not change images of this shape
  S share, rest;         // blends: weights of the image and of the flatter image
  S level;  // posterize: the step between levels; quantise: the highest level; pools: 1 / pixels of a window
  bool straight_through;
  int reach;                      // blurs: half of the window
  // Resizes: the factor and the size of the small image. wide_blur keeps the vertically blurred image in its place.
  int factor, height, width;
  S row_scale, column_scale;      // size of the small image / size of the image
  S row_spacing, column_spacing;  // size of the image / size of the small image
  const S* values;
};

DEAL_INLINE bool resizes(DegradationKind kind) {
  return kind == DegradationKind::max_pool_resize || kind == DegradationKind::average_pool_resize ||
         kind == DegradationKind::bicubic_resize;
}

DEAL_INLINE int reach_of(DegradationKind kind) {
  return kind == DegradationKind::gaussian_blur ? kBlurReach : kind == DegradationKind::wide_blur ? kWideReach : 0;
}

// Saturation needs three channels; sharpness needs pixels that are not on the border.
inline bool changes_nothing(DegradationKind kind, const DegradationInput& a) {
  return (kind == DegradationKind::saturation && a.channels != 3) ||
         (kind == DegradationKind::sharpness && (a.height <= 2 || a.width <= 2));
}

template <class S>
void plan_op(const DegradationInput& a, const DegradationOp& op, PlannedOp<S>& planned) {
  planned.kind = changes_nothing(op.kind, a) ? DegradationKind::identity : op.kind;
  planned.share = S(op.strength);
  planned.rest = S(1 - op.strength);
  planned.straight_through = op.straight_through;
  planned.values = static_cast<const S*>(op.values);
  planned.reach = reach_of(op.kind);
  if (op.kind == DegradationKind::posterize) planned.level = posterize_step<S>(int(op.strength));
  if (op.kind == DegradationKind::quantise) planned.level = S((1 << int(op.strength)) - 1);
  planned.factor = resizes(op.kind) ? int(op.strength) : 1;
  planned.height = int(a.height) / planned.factor;
  planned.width = int(a.width) / planned.factor;
  if (!resizes(op.kind)) return;
  planned.row_scale = S(planned.height) / S(a.height);
  planned.column_scale = S(planned.width) / S(a.width);
  planned.row_spacing = S(a.height) / S(planned.height);
  planned.column_spacing = S(a.width) / S(planned.width);
  planned.level = S(1) / S(planned.factor * planned.factor);
}

// Whether any of the ops is of this kind.
template <class Op>
bool contains(const Op* ops, int count, DegradationKind kind) {
  for (int j = 0; j < count; ++j)
    if (ops[j].kind == kind) return true;
  return false;
}

}  // namespace deal
