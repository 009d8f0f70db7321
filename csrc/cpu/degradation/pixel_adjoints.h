// The adjoints of ops on single pixels, for a row of a channel.
#pragma once
#include "row_ops.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// A row of the image, of the gradient of the result, and of the gradient of the image. The functions add the
// contribution of an op to the last one, and return the dot product of the result's gradient and the result of the op.
template <class S>
struct AdjointRow {
  using V = Wide<S>;  // for sums

  const S *x, *g;
  S weight;
  S* to;
  int count;

  // For an op with the result value(x, column), whose gradient is part(gradient of the result, x, column).
  template <class Value, class Part>
  DEAL_INLINE double add(const Value& value, const Part& part) const {
    V dot{};
    for (int i = 0; i < count; i += V::lanes) {
      const V own = read<V>(x + i), grad = read<V>(g + i);
      dot = dot + grad * value(own, i);
      store(to + i, read<V>(to + i) + part(grad, own, i) * weight);
    }
    return sum_of_lanes(dot);
  }

  // For ops that only add something to the image.
  template <class Value>
  DEAL_INLINE double add_through(const Value& value) const {
    return add(value, [](const V& grad, const V&, int) DEAL_FLAT { return grad; });
  }

  // For ops whose gradient is that of the clamp in them.
  template <class Value>
  DEAL_INLINE double add_clamped(const Value& value) const {
    return add(value, [](const V& grad, const V& own, int) DEAL_FLAT { return passed(own, grad); });
  }

  double add_gain(const S* gains) const {
    return add([=](const V& v, int i) DEAL_FLAT { return v * read<V>(gains + i); },
               [=](const V& grad, const V&, int i) DEAL_FLAT { return grad * read<V>(gains + i); });
  }

  double add_row_gain(S gain) const {
    return add([=](const V& v, int) DEAL_FLAT { return v * gain; },
               [=](const V& grad, const V&, int) DEAL_FLAT { return grad * gain; });
  }

  double add_tone(S gain, S offset) const {
    return add([=](const V& v, int) DEAL_FLAT { return v * gain + offset; },
               [=](const V& grad, const V&, int) DEAL_FLAT { return grad * gain; });
  }

  double add_replaced(const S* values) const {
    return add([=](const V& v, int i) DEAL_FLAT { return replaced(v, read<V>(values + i)); },
               [=](const V& grad, const V&, int i) DEAL_FLAT {
                 const V value = read<V>(values + i);
                 return select(value <= value, V{}, grad);
               });
  }

  double add_quantised(S levels) const {
    return add_clamped([=](const V& v, int) DEAL_FLAT { return quantised(v, levels); });
  }

  double add_posterized(S level, bool straight_through) const {
    if (straight_through) return add_clamped([=](const V& v, int) DEAL_FLAT { return posterized(v, level); });
    V dot{};
    for (int i = 0; i < count; i += V::lanes) dot = dot + read<V>(g + i) * posterized(read<V>(x + i), level);
    return sum_of_lanes(dot);
  }
};

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
