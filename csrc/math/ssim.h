// Structural similarity at one pixel, and its window. deal_kernels/ssim/reference.py is the same in Python.
//
// Only the sum of the two variances is needed, so four filtered images are enough: a, b, a^2 + b^2 and ab.
#pragma once
#include "platform.h"

namespace deal {

constexpr int kReach = 5;  // half-width of the window

// The Gaussian filter (standard deviation 1.5) along one axis. at(k) is the value k pixels away.
template <class V, class At>
DEAL_INLINE V filtered(const At& at) {
  using S = scalar_t<V>;
  const V five = (at(-5) + at(5)) * S(0.0010283800844791099), four = (at(-4) + at(4)) * S(0.007598758135239184);
  const V three = (at(-3) + at(3)) * S(0.03600077212843082), two = (at(-2) + at(2)) * S(0.1093606895097);
  const V one = (at(-1) + at(1)) * S(0.21300553771125366), own = at(0) * S(0.2660117248617943);
  return ((five + four) + (three + two)) + (one + own);
}

template <class V>
struct Moments {
  V a, b, squares, product;  // of a, b, a^2 + b^2 and ab, each filtered
};

template <class V>
struct Similarity {
  V value;
  Moments<V> slope;  // derivatives with respect to the moments, times a weight
};

template <class V>
DEAL_INLINE V similarity(const Moments<V>& m, scalar_t<V> c1, scalar_t<V> c2) {
  const V ab = m.a * m.b, aabb = m.a * m.a + m.b * m.b;
  return ((ab + ab + c1) * ((m.product - ab) + (m.product - ab) + c2)) / ((aabb + c1) * ((m.squares - aabb) + c2));
}

template <class V>
DEAL_INLINE Similarity<V> similarity(const Moments<V>& m, scalar_t<V> c1, scalar_t<V> c2, V weight) {
  const V ab = m.a * m.b, aabb = m.a * m.a + m.b * m.b, covariance = m.product - ab;
  const V over1 = ab + ab + c1, over2 = covariance + covariance + c2;
  const V under1 = aabb + c1, under2 = (m.squares - aabb) + c2;
  const V under = under1 * under2, value = (over1 * over2) / under;
  const V share = (weight + weight) / under, less = value * share;
  const V other = (over2 - over1) * share, same = (under1 - under2) * less;
  // The slope of the squares already has the factor 2 from the derivative of a square.
  return {value, {m.b * other + m.a * same, m.a * other + m.b * same, -(under1 * less), over1 * share}};
}

// The gradient of a pixel of one image, given the filtered slopes; `mine` is the slope of the same image's moment, and
// `own` and `other` are the pixels of this image and of the other one.
template <class V>
DEAL_INLINE V similarity_gradient(V mine, V squares, V product, V own, V other) {
  return (mine + own * squares) + other * product;
}

// The gradient of |a - b| with respect to a, times a weight.
template <class V>
DEAL_INLINE V distance_gradient(V a, V b, scalar_t<V> weight) {
  const scalar_t<V> none = 0;
  return select(a > b, weight, none) - select(a < b, weight, none);
}

}  // namespace deal
