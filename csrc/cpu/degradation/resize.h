// The resizes of a degradation mixture: images are shrunk and enlarged again; and the adjoints of both.
#pragma once
#include "stage.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// The positions of the maxima of a row of windows: rows within the window, columns within the image.
template <class S>
struct MaxPositions {
  S* rows;
  int* columns;
};

constexpr int kAtOnce = 16;  // rows that are reduced at a time

// Scratch rows for resizes.
template <class S>
struct ResizeScratch {
  explicit ResizeScratch(const Plan<S>& plan)
      : lines(plan, kAtOnce + 3), fold(lines[kAtOnce]), max_row(lines[kAtOnce + 1]), line(lines[kAtOnce + 2]) {}
  const Lines<S> lines;
  S *const fold, *const max_row, *const line;
};

// Rows of a channel and their weights.
template <class S>
struct Rows {
  int count = 0;
  const S* at[kAtOnce];
  S weight[kAtOnce];

  void add(const Plan<S>& plan, const ResizeScratch<S>& scratch, const Image<S>& image, int64_t channel, int64_t y,
           S factor) {
    at[count] = row_of(plan, image, channel, y, scratch.lines[count]);
    weight[count++] = factor;
  }
};

// Adds the weighted rows to scratch.fold.
template <class S>
void add_rows(const Plan<S>& plan, const ResizeScratch<S>& scratch, Rows<S>& rows) {
  S* const fold = scratch.fold;
  each_vector<S>(plan.count, [&](int i) DEAL_FLAT {
    Pack<S> total = load(fold + i);
    for (int k = 0; k < rows.count; ++k) total = total + load(rows.at[k] + i) * rows.weight[k];
    store(fold + i, total);
  });
  rows.count = 0;
}

// Copies every factor-th value of a row.
template <class S>
void thin_out(const S* from, const Step<S>& step, S* to) {
  const int64_t count = step.width, factor = step.factor;
  for (int64_t j = 0; j < count; ++j) to[j] = from[j * factor];
}

// Reduces the rows and scratch.fold to their maximum, and if `positions` writes the rows of the maxima to
// scratch.max_row. `first` is the number of the first row.
template <bool positions, class S>
void take_largest(const Plan<S>& plan, const ResizeScratch<S>& scratch, const Rows<S>& rows, int64_t first) {
  S *const fold = scratch.fold, *const max_row = scratch.max_row;
  each_vector<S>(plan.count, [&](int i) DEAL_FLAT {
    Pack<S> best = load((first ? fold : rows.at[0]) + i), row = first ? load(max_row + i) : Pack<S>{};
    for (int k = first ? 0 : 1; k < rows.count; ++k) {
      const Pack<S> value = load(rows.at[k] + i), mine = Pack<S>{} + S(first + k);
      if (positions) row = select(at_second(best, value, row, mine), mine, row);
      best = larger(best, value);
    }
    store(fold + i, best);
    if (positions) store(max_row + i, row);
  });
}

// Computes the maxima of a row of windows, and their positions unless places.rows is null. Maxima of all windows at any
// column are computed; those that do not begin at a multiple of the factor are dropped.
template <class S>
void shrink_max(const Plan<S>& plan, const ResizeScratch<S>& scratch, const Step<S>& step, const Image<S>& image,
                int64_t channel, int64_t at, S* to, const MaxPositions<S>& places) {
  const bool wanted = places.rows;
  Rows<S> rows;
  for (int64_t row = 0; row < step.factor; ++row) {
    rows.add(plan, scratch, image, channel, at * step.factor + row, S(1));
    if (rows.count < kAtOnce && row + 1 < step.factor) continue;
    const int64_t first = row + 1 - rows.count;
    wanted ? take_largest<true>(plan, scratch, rows, first) : take_largest<false>(plan, scratch, rows, first);
    rows.count = 0;
  }
  S *const fold = scratch.fold, *const max_row = scratch.max_row, *const column = scratch.line;
  const int factor = int(step.factor);
  each_vector<S>(plan.count, [=](int i) DEAL_FLAT {
    Pack<S> best = load(fold + i), row = load(max_row + i), shift{};
    for (int k = 1; k < factor; ++k) {
      const Pack<S> value = load(fold + i + k), mine = load(max_row + i + k);
      if (wanted) {
        const auto second = at_second(best, value, row, mine);
        row = select(second, mine, row);
        shift = select(second, Pack<S>{} + S(k), shift);
      }
      best = larger(best, value);
    }
    store(fold + i, best);
    if (!wanted) return;
    store(max_row + i, row);
    store(column + i, shift);
  });
  thin_out(fold, step, to);
  if (!wanted) return;
  thin_out(max_row, step, places.rows);
  for (int j = 0; j < int(step.width); ++j) places.columns[j] = j * factor + int(column[j * factor]);
}

template <class S>
void shrink_average(const Plan<S>& plan, const ResizeScratch<S>& scratch, const Step<S>& step, const Image<S>& image,
                    int64_t channel, int64_t at, S* to) {
  Rows<S> rows;
  clear(scratch.fold, 0, plan.count);
  for (int64_t row = 0; row < step.factor; ++row) {
    rows.add(plan, scratch, image, channel, at * step.factor + row, S(1));
    if (rows.count == kAtOnce || row + 1 == step.factor) add_rows(plan, scratch, rows);
  }
  S* const fold = scratch.fold;
  const int factor = int(step.factor);
  const S pixels = S(step.factor * step.factor);
  each_vector<S>(plan.count, [=](int i) DEAL_FLAT {
    Pack<S> total = load(fold + i);
    for (int k = 1; k < factor; ++k) total = total + load(fold + i + k);
    store(fold + i, total / pixels);
  });
  thin_out(fold, step, to);
}

inline int64_t within(int64_t at, int64_t count) { return at < 0 ? 0 : at < count ? at : count - 1; }

template <class S>
void shrink_cubic(const Plan<S>& plan, const ResizeScratch<S>& scratch, const Step<S>& step, const Image<S>& image,
                  int64_t channel, int64_t at, S* to) {
  const Cubic<S> place = cubic(at, step.row_spacing);
  Rows<S> rows;
  clear(scratch.fold, 0, plan.count);
  for (int k = 0; k < 4; ++k)
    rows.add(plan, scratch, image, channel, within(place.first + k, plan.a.height), place.weight[k]);
  add_rows(plan, scratch, rows);
  scratch.fold[-1] = scratch.fold[0];
  scratch.fold[plan.width] = scratch.fold[plan.width - 1];
  for (int64_t j = 0; j < step.width; ++j) {
    const Cubic<S>& columns = step.tables.cubic[j];
    const S* from = scratch.fold + columns.first;
    to[j] = (from[0] * columns.weight[0] + from[1] * columns.weight[1]) +
            (from[2] * columns.weight[2] + from[3] * columns.weight[3]);
  }
}

// Computes row `at` of the small image; for a max pool also the positions of the maxima, unless places.rows is null.
template <class S>
void shrink(const Plan<S>& plan, const ResizeScratch<S>& scratch, const Step<S>& step, const Image<S>& image,
            int64_t channel, int64_t at, S* to, const MaxPositions<S>& places) {
  if (step.kind == DegradationKind::max_pool_resize) shrink_max(plan, scratch, step, image, channel, at, to, places);
  else if (step.kind == DegradationKind::average_pool_resize)
    shrink_average(plan, scratch, step, image, channel, at, to);
  else shrink_cubic(plan, scratch, step, image, channel, at, to);
  to[step.width] = to[step.width - 1];
}

// Enlarges a row of the small image to the width of the image.
template <class S>
void widen_row(const Step<S>& step, const S* from, S* to, int width) {
  const int* const low = step.tables.low;
  const S* const share = step.tables.share;
  for (int x = 0; x < width; ++x) {
    const S* two = from + low[x];
    to[x] = two[0] * (S(1) - share[x]) + two[1] * share[x];
  }
}

// Computes row `at` of the gradient of the small image, from the gradient of the large one.
template <class S>
void narrow_gradient(const Plan<S>& plan, const ResizeScratch<S>& scratch, const Step<S>& step, const Image<S>& grad,
                     int64_t channel, int64_t at, S* to) {
  Rows<S> rows;
  clear(scratch.fold, 0, plan.count);
  int64_t y = (at - 1) * step.factor;
  for (y = y < 0 ? 0 : y; y < plan.a.height; ++y) {
    const Between<S> place = between(y, step.row_scale, step.height);
    if (place.high < at) continue;
    if (place.low > at) break;
    const S weight = place.low == place.high ? S(1) : place.low == at ? S(1) - place.share : place.share;
    rows.add(plan, scratch, grad, channel, y, weight);
    if (rows.count == kAtOnce) add_rows(plan, scratch, rows);
  }
  add_rows(plan, scratch, rows);
  S *const fold = scratch.fold, *const seconds = scratch.line;
  const S* const share = step.tables.share;
  each_vector<S>(plan.count, [=](int i) DEAL_FLAT {
    const Pack<S> value = load(fold + i), second = value * load(share + i);
    store(seconds + i, second);
    store(fold + i, value - second);
  });
  S from_before = 0;
  const int* const begin = step.tables.begin;
  const int count = int(step.width);
  for (int j = 0; j < count; ++j) {
    S first = 0, second = 0;
    for (int x = begin[j]; x < begin[j + 1]; ++x) first += fold[x], second += seconds[x];
    to[j] = from_before + first;
    from_before = second;
  }
  to[count - 1] += from_before;
}

// These three add to row y of the image's gradient, from the gradient of the small image times a weight.
template <class S>
void add_max_gradient(const Step<S>& step, const S* grad, const MaxPositions<S>& places, int64_t y, S weight,
                      S* passing, S* to) {
  const S *const rows = places.rows, row = S(y % step.factor);
  each_vector<S>(int(step.width), [=](int i) DEAL_FLAT {
    const Pack<S> mine = load(rows + i);
    store(passing + i, select((mine >= row) & (mine <= row), load(grad + i) * weight, Pack<S>{}));
  });
  const int *const columns = places.columns, count = int(step.width);
  for (int j = 0; j < count; ++j) to[columns[j]] += passing[j];
}

template <class S>
void add_average_gradient(const Step<S>& step, const S* grad, S weight, S* to) {
  const S part = weight / S(step.factor * step.factor);
  for (int64_t j = 0; j < step.width; ++j)
    for (int64_t k = 0; k < step.factor; ++k) *to++ += grad[j] * part;
}

template <class S>
void add_cubic_gradient(const Plan<S>& plan, const Step<S>& step, const S* grad, int64_t y, S weight, S* passing,
                        S* wide, S* to) {
  const int count = int(step.width);
  const int64_t from = y / step.factor - 4;
  clear(passing, 0, count + kMargin);
  for (int64_t at = from < 0 ? 0 : from; at < step.height; ++at) {
    const Cubic<S> rows = cubic(at, step.row_spacing);
    if (rows.first > y) break;
    S share = 0;
    for (int k = 0; k < 4; ++k)
      if (within(rows.first + k, plan.a.height) == y) share += rows.weight[k];
    if (share == 0) continue;
    const S *const row = grad + at * step.tables.pitch, part = share * weight;
    each_vector<S>(count, [=](int i) DEAL_FLAT { store(passing + i, load(passing + i) + load(row + i) * part); });
  }
  clear(wide, -1, plan.width + 1);
  for (int j = 0; j < count; ++j) {
    const Cubic<S>& columns = step.tables.cubic[j];
    S* const four = wide + columns.first;
    for (int k = 0; k < 4; ++k) four[k] += passing[j] * columns.weight[k];
  }
  wide[0] += wide[-1];
  wide[plan.width - 1] += wide[plan.width];
  each_vector<S>(plan.width, [=](int i) DEAL_FLAT { store(to + i, load(to + i) + load(wide + i)); });
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
