// Ops on single rows, and the state of an op during a stage of a sample. Both passes use them.
#pragma once
#include "resize.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// An op during a stage of a sample.
template <class S>
struct OpState {
  S weight;
  Taps<S> taps;
  const S* values;           // those of the stage
  int64_t widened_rows[2];   // the rows of the small image that are held enlarged, or -1
};

template <class S>
void hold(OpState<S>& held, const Step<S>& step, S weight, const Plan<S>& plan, int64_t sample, int64_t stage) {
  const DegradationInput& a = plan.a;
  const int64_t place = sample * a.stages + stage;
  held = {weight, {}, step.values, {-1, -1}};
  switch (step.kind) {
    case DegradationKind::gaussian_blur:
    case DegradationKind::wide_blur: gaussian(double(step.values[place]), step.reach, held.taps); break;
    case DegradationKind::stripe:
    case DegradationKind::gain: held.values += place * a.width; break;
    case DegradationKind::row_stripe:
    case DegradationKind::row_gain: held.values += place * a.height; break;
    case DegradationKind::tone: held.values += place * 2; break;
    case DegradationKind::pattern: held.values += place * a.height * a.width; break;
    case DegradationKind::noise:
    case DegradationKind::dead: held.values += place * plan.pixels(); break;
    default: break;
  }
}

// The values of an op in row y of a channel, for ops that have some for every column or pixel.
template <class S>
const S* value_row(const Plan<S>& plan, DegradationKind kind, const OpState<S>& held, int64_t channel, int64_t y) {
  const bool of_pixels = kind == DegradationKind::noise || kind == DegradationKind::dead;
  if (of_pixels) return held.values + (channel * plan.a.height + y) * plan.a.width;
  return kind == DegradationKind::pattern ? held.values + y * plan.a.width : held.values;
}

// OpScratch rows for ops: `row` for the blur, `flat` for the flatter image of a blend.
template <class S>
struct OpScratch {
  explicit OpScratch(const Plan<S>& plan)
      : lines(plan, 3), row(lines[0]), flat(lines[1]), values(lines[2]) {}
  const Lines<S> lines;
  S *const row, *const flat, *const values;
};

// The mean gray value, from the sums of every row and channel.
template <class S>
S mean_of_gray(const DegradationInput& a, const double* sums) {
  double total = 0;
  for (int64_t y = 0; y < a.height; ++y)
    for (int64_t c = 0; c < a.channels; ++c) total += double(gray_share<S>(c, a.channels)) * sums[y * a.channels + c];
  return S(total / (double(a.height) * double(a.width)));
}

template <class S>
void sum_rows(const Plan<S>& plan, const Image<S>& image, const ResizeScratch<S>& scratch, int64_t begin, int64_t end,
              double* sums) {
  for (int64_t y = begin; y < end; ++y)
    for (int64_t c = 0; c < plan.a.channels; ++c) {
      const S* const row = row_of(plan, image, c, y, scratch.line);
      Wide<S> lanes{};
      for (int i = 0; i < plan.count; i += Wide<S>::lanes) lanes = lanes + read<Wide<S>>(row + i);
      sums[y * plan.a.channels + c] = sum_of_lanes(lanes);
    }
}

template <class S>
void add_three(const S* above, const S* own, const S* below, S* to, int count) {
  each_vector<S>(count, [=](int i) DEAL_FLAT { store(to + i, load(above + i) + load(own + i) + load(below + i)); });
}

// Row y of the smooth image that sharpness blends with, from the rows at(-1), at(0) and at(1).
template <class S, class At>
void smooth_row(const Plan<S>& plan, int64_t y, const At& at, S* column, S* to) {
  const S* const own = at(0);
  if (y == 0 || y == plan.a.height - 1) {
    __builtin_memcpy(to, own, sizeof(S) * size_t(plan.count));
    return;
  }
  const S *const above = at(-1), *const below = at(1);
  add_three(above, own, below, column, plan.count);
  each_vector<S>(plan.count, [=](int i) DEAL_FLAT {
    store(to + i, smoothed((load(column + i - 1) + load(column + i + 1)) + load(column + i), load(own + i)));
  });
  to[0] = own[0];
  to[plan.width - 1] = own[plan.width - 1];
}

// Row y of the vertical blur. at(y) is a row of the image.
template <int reach, class S, class At>
void blur_down(const Plan<S>& plan, const Taps<S>& taps, int64_t y, const At& at, S* to) {
  const S* rows[2 * reach + 1];
  for (int k = -reach; k <= reach; ++k) rows[k + reach] = at(reflected(y + k, plan.a.height));
  const Taps<S> t = taps;
  each_vector<S>(plan.count, [&](int i) DEAL_FLAT {
    store(to + i, blurred<Pack<S>, reach>([&](int k) DEAL_FLAT { return load(rows[k + reach] + i); }, t));
  });
}

// Extends a row by reflection at both ends.
template <int reach, class S>
void reflect_ends(S* row, int width) {
  for (int k = 1; k <= reach; ++k) {
    row[-k] = row[k];
    row[width - 1 + k] = row[width - 1 - k];
  }
}

// The horizontal blur at p.
template <class V, int reach, class S>
DEAL_INLINE V blurred_along(const S* p, const Taps<S>& taps) {
  return blurred<V, reach>([=](int k) DEAL_FLAT { return read<V>(p + k); }, taps);
}

// Two neighbouring rows of a small image, enlarged to the width of the image, and the weight of the second one.
template <class S>
struct WidenedRows {
  const S *low, *high;
  S share;
};

// The two rows of a small image that row y of the image lies between. A worker holds two enlarged rows per channel,
// from `line` on.
template <class S>
WidenedRows<S> widened(const Plan<S>& plan, const Step<S>& step, const S* small, OpState<S>& held, const Lines<S>& wide,
                int64_t line, int64_t channel, int64_t y) {
  const Between<S> place = between(y, step.row_scale, step.height);
  for (int64_t row = place.low; row <= place.high; ++row) {
    int64_t& known = held.widened_rows[row % 2];
    if (known == row) continue;
    known = row;
    for (int64_t c = 0; c < plan.a.channels; ++c)
      widen_row(step, small + (c * step.height + row) * step.tables.pitch, wide[line + 2 * c + row % 2], plan.width);
  }
  return {wide[line + 2 * channel + place.low % 2], wide[line + 2 * channel + place.high % 2], place.share};
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
