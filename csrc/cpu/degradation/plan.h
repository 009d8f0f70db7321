// What is prepared once for a call of the degradation mixture: its ops and the tables of its resizes.
#pragma once
#include "../../types.h"

#include "../../math/degradation_plan.h"
#include "../common/parallel.h"
#include "../common/rows.h"
#include "../common/pair.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kMargin = 16;  // values before and after a row, for windows at its ends

// Calls body(first column) for every vector of a row.
template <class S, class Body>
DEAL_INLINE void each_vector(int count, const Body& body) {
  for (int i = 0; i < count; i += Pack<S>::lanes) body(i);
}

template <class V>
double sum_of_lanes(const V& lanes) {
  double total = 0;
  add_lanes(total, lanes);
  return total;
}

// The dot product of two rows. One of them is zero past its end.
template <class S>
double dot(const S* a, const S* b, int count) {
  Wide<S> products{};
  for (int i = 0; i < count; i += Wide<S>::lanes) products = products + read<Wide<S>>(a + i) * read<Wide<S>>(b + i);
  return sum_of_lanes(products);
}

// Tables of an op that shrinks the image and enlarges it again. Rows of the small image end with their last value
// twice.
template <class S>
struct ResizeTables {
  int64_t pitch;          // distance of two rows of the small image
  int64_t first;         // offset of the small image, among those of all ops
  const int* low;         // by column of the image: the first of the two small columns it lies between
  const S* share;         // by column of the image: the weight of the second one
  const int* begin;       // by small column: the first column whose `low` it is; at the end, the number of columns
  const Cubic<S>* cubic;  // by small column
};

template <class S>
struct Step : PlannedOp<S> {
  ResizeTables<S> tables;
};

template <class S>
class Plan {
 public:
  explicit Plan(const DegradationInput& a)
      : a(a),
        width(int(a.width)),
        count((width + Wide<S>::lanes - 1) / Wide<S>::lanes * Wide<S>::lanes),
        pitch(count + 2 * kMargin),
        steps(a.op_count, Fill::zeros),
        ints_(a.op_count * (2 * a.width + 1), Fill::zeros),
        shares_(a.op_count * a.width + kMargin, Fill::zeros),
        cubics_(a.op_count * a.width, Fill::zeros) {
    for (int j = 0; j < a.op_count; ++j) {
      plan_op(a, a.ops[j], steps[j]);
      if (resizes(steps[j].kind)) make_tables(steps[j], j);
    }
    contrast = contains(steps.get(), a.op_count, DegradationKind::contrast);
    sharpness = contains(steps.get(), a.op_count, DegradationKind::sharpness);
    for (int j = 0; j < a.op_count; ++j) blur_reach = steps[j].reach > blur_reach ? steps[j].reach : blur_reach;
  }

  int64_t pixels() const { return a.channels * a.height * a.width; }

  const DegradationInput& a;
  const int width, count;  // of a row; count is a whole number of the widest vectors
  const int64_t pitch;     // distance of two rows in a buffer
  Buffer<Step<S>> steps;
  int64_t small = 0;  // number of values of all small images
  int blur_reach = 0;  // the largest; 0 without a blur
  bool contrast = false, sharpness = false;

 private:
  void make_tables(Step<S>& step, int number) {
    ResizeTables<S>& t = step.tables;
    t.pitch = step.width + 1 + kMargin;
    t.first = small;
    small += a.channels * step.height * t.pitch;
    int* const low = ints_.get() + number * (2 * a.width + 1);
    int* const begin = low + a.width;
    S* const share = shares_.get() + number * a.width;
    Cubic<S>* const cubics = cubics_.get() + number * a.width;
    for (int64_t x = a.width; x-- > 0;) {
      const Between<S> found = between(x, step.column_scale, step.width);
      low[x] = int(found.low);
      share[x] = found.share;
      begin[found.low] = int(x);
    }
    begin[step.width] = width;
    for (int64_t x = 0; x < step.width; ++x) cubics[x] = cubic(x, step.column_spacing);
    t.low = low;
    t.begin = begin;
    t.share = share;
    t.cubic = cubics;
  }

  Buffer<int> ints_;
  Buffer<S> shares_;  // padded to whole vectors
  Buffer<Cubic<S>> cubics_;
};

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
