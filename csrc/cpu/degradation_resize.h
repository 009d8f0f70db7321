// The small images of a degradation mixture: how they are made, made large again, and the adjoints of both.
#pragma once
#include "degradation_plan.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// Where in the image a maximum was.
struct Place {
  int row, column;
};

// Rows that resizes work in.
template <class S>
struct Desk {
  explicit Desk(const Plan<S>& plan) : lines(plan, 3), line(lines[0]), fold(lines[1]), whose(lines[2]) {}
  const Lines<S> lines;
  S *const line, *const fold, *const whose;
};

// Of a row of windows, each the first of its largest values, or the last NaN; `desk.fold` and `desk.whose` have the
// largest of every column and its row in the window.
template <class S>
void find_places(const Desk<S>& desk, const Resize<S>& r, int64_t at, S* to, Place* places) {
  for (int j = 0; j < int(r.width); ++j) {
    const int left = j * int(r.factor);
    int best = left;
    for (int x = left + 1; x < left + int(r.factor); ++x) {
      const S value = desk.fold[x], known = desk.fold[best];
      const bool earlier = desk.whose[x] < desk.whose[best];
      if (value > known || (value == known && earlier) || (value != value && !(known != known && earlier))) best = x;
    }
    to[j] = desk.fold[best];
    places[j] = {int(at * r.factor) + int(desk.whose[best]), best};
  }
}

template <class S>
void shrink_max(const Plan<S>& plan, const Desk<S>& desk, const Resize<S>& r, const Image<S>& image, int64_t channel,
                int64_t at, S* to, Place* places) {
  constexpr int lanes = Pack<S>::lanes;
  const int count = plan.count;
  fetch(plan, image, channel, at * r.factor, desk.fold);
  if (places) clear(desk.whose, 0, count);
  for (int64_t row = 1; row < r.factor; ++row) {
    fetch(plan, image, channel, at * r.factor + row, desk.line);
    const Pack<S> mine = Pack<S>{} + S(row);
    for (int i = 0; i < count; i += lanes) {
      const Pack<S> first = load(desk.fold + i), second = load(desk.line + i);
      store(desk.fold + i, larger(first, second));
      if (!places) continue;
      const Pack<S> whose = load(desk.whose + i);
      store(desk.whose + i, select(second > first, mine, select(second <= second, whose, mine)));
    }
  }
  if (places) return find_places(desk, r, at, to, places);
  const S* from = desk.fold;
  for (int64_t j = 0; j < r.width; ++j, from += r.factor) {
    S best = from[0];
    for (int64_t k = 1; k < r.factor; ++k) best = larger(best, from[k]);
    to[j] = best;
  }
}

template <class S>
void shrink_average(const Plan<S>& plan, const Desk<S>& desk, const Resize<S>& r, const Image<S>& image,
                    int64_t channel, int64_t at, S* to) {
  fetch(plan, image, channel, at * r.factor, desk.fold);
  for (int64_t row = 1; row < r.factor; ++row) {
    fetch(plan, image, channel, at * r.factor + row, desk.line);
    for (int i = 0; i < plan.count; i += Pack<S>::lanes) store(desk.fold + i, load(desk.fold + i) + load(desk.line + i));
  }
  const S* from = desk.fold;
  for (int64_t j = 0; j < r.width; ++j, from += r.factor) {
    S total = from[0];
    for (int64_t k = 1; k < r.factor; ++k) total += from[k];
    to[j] = total / S(r.factor * r.factor);
  }
}

inline int64_t within(int64_t at, int64_t count) { return at < 0 ? 0 : at < count ? at : count - 1; }

template <class S>
void shrink_cubic(const Plan<S>& plan, const Desk<S>& desk, const Resize<S>& r, const Image<S>& image, int64_t channel,
                  int64_t at, S* to) {
  const Cubic<S> rows = cubic(at, S(plan.a.height) / S(r.height));
  clear(desk.fold, 0, plan.count);
  for (int k = 0; k < 4; ++k) {
    fetch(plan, image, channel, within(rows.first + k, plan.a.height), desk.line);
    const S weight = rows.weight[k];
    for (int i = 0; i < plan.count; i += Pack<S>::lanes)
      store(desk.fold + i, load(desk.fold + i) + load(desk.line + i) * weight);
  }
  desk.fold[-1] = desk.fold[0];
  desk.fold[plan.width] = desk.fold[plan.width - 1];
  for (int64_t j = 0; j < r.width; ++j) {
    const Cubic<S>& columns = r.cubic[j];
    const S* from = desk.fold + columns.first;
    to[j] = (from[0] * columns.weight[0] + from[1] * columns.weight[1]) +
            (from[2] * columns.weight[2] + from[3] * columns.weight[3]);
  }
}

// Row `at` of the small image. With `places`, of a maximum also where it was.
template <class S>
void shrink(const Plan<S>& plan, const Desk<S>& desk, const Step<S>& step, const Image<S>& image, int64_t channel,
            int64_t at, S* to, Place* places) {
  const Resize<S>& r = step.resize;
  if (step.kind == Degradation::max_pool) shrink_max(plan, desk, r, image, channel, at, to, places);
  else if (step.kind == Degradation::average_pool) shrink_average(plan, desk, r, image, channel, at, to);
  else shrink_cubic(plan, desk, r, image, channel, at, to);
  to[r.width] = to[r.width - 1];
}

// A row of the small image as wide as the image.
template <class S>
void widen_row(const Resize<S>& r, const S* from, S* to, int width) {
  for (int x = 0; x < width; ++x) {
    const S* two = from + r.low[x];
    to[x] = two[0] * (S(1) - r.share[x]) + two[1] * r.share[x];
  }
}

// Row `at` of the gradient of the small image, from that of the large one.
template <class S>
void narrow_gradient(const Plan<S>& plan, const Desk<S>& desk, const Resize<S>& r, const Image<S>& grad, int64_t channel,
                     int64_t at, S* to) {
  clear(desk.fold, 0, plan.count);
  int64_t y = (at - 1) * r.factor;
  for (y = y < 0 ? 0 : y; y < plan.a.height; ++y) {
    const Between<S> place = between(y, r.rows, r.height);
    if (place.high < at) continue;
    if (place.low > at) break;
    const S weight = place.low == place.high ? S(1) : place.low == at ? S(1) - place.share : place.share;
    fetch(plan, grad, channel, y, desk.line);
    for (int i = 0; i < plan.count; i += Pack<S>::lanes)
      store(desk.fold + i, load(desk.fold + i) + load(desk.line + i) * weight);
  }
  for (int64_t j = 0; j < r.width; ++j) {
    S before = 0, behind = 0;
    for (int x = j ? r.begin[j - 1] : 0; j && x < r.begin[j]; ++x) before += desk.fold[x] * r.share[x];
    for (int x = r.begin[j]; x < r.begin[j + 1]; ++x)
      behind += j + 1 < r.width ? desk.fold[x] * (S(1) - r.share[x]) : desk.fold[x];
    to[j] = before + behind;
  }
}

// Adds what row y of the image's gradient has from the small image's, times a weight.
template <class S>
void add_max_gradient(const Resize<S>& r, const S* grad, const Place* places, int64_t y, S weight, S* to) {
  for (int64_t j = 0; j < r.width; ++j) to[places[j].column] += places[j].row == y ? grad[j] * weight : S(0);
}

template <class S>
void add_average_gradient(const Resize<S>& r, const S* grad, S weight, S* to) {
  const S part = weight / S(r.factor * r.factor);
  for (int64_t j = 0; j < r.width; ++j)
    for (int64_t k = 0; k < r.factor; ++k) *to++ += grad[j] * part;
}

template <class S>
void add_cubic_gradient(const Plan<S>& plan, const Resize<S>& r, const S* grad, int64_t y, S weight, S* to) {
  const int64_t from = y / r.factor - 4;
  for (int64_t at = from < 0 ? 0 : from; at < r.height; ++at) {
    const Cubic<S> rows = cubic(at, S(plan.a.height) / S(r.height));
    if (rows.first > y) break;
    S share = 0;
    for (int k = 0; k < 4; ++k)
      if (within(rows.first + k, plan.a.height) == y) share += rows.weight[k];
    if (share == 0) continue;
    for (int64_t j = 0; j < r.width; ++j)
      for (int k = 0; k < 4; ++k)
        to[within(r.cubic[j].first + k, plan.width)] += grad[at * r.pitch + j] * weight * share * r.cubic[j].weight[k];
  }
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
