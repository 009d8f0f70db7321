// Winograd's F(4, 3): four results of three weights take six products instead of twelve. Pixels and weights are seen as
// polynomials whose values at 0, +-3/4, +-3/2 and infinity are multiplied. With these points the transforms have small
// factors, and smaller rounding errors than with integer points.
#pragma once
#include "fft.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kWinograd = 6;
constexpr float kNear = 0.75f, kFar = 1.5f;  // the points
constexpr float kNear2 = kNear * kNear, kFar2 = kFar * kFar;

DEAL_INLINE Complex operator*(float a, Complex b) { return {a * b.re, a * b.im}; }

// Each reads its numbers by get(index) and writes results by put(index, number).
template <class Get, class Put>
DEAL_INLINE void winograd_pixels(const Get& get, const Put& put) {
  const auto end = [](Complex low, Complex middle, Complex high) DEAL_FLAT {
    return high - (kNear2 + kFar2) * middle + (kNear2 * kFar2) * low;
  };
  const Complex b = get(1), c = get(2), d = get(3), e = get(4);
  put(0, end(get(0), c, e));
  put(5, end(b, d, get(5)));
  const Complex even = e - kFar2 * c, odd = kNear * (d - kFar2 * b);
  put(1, even + odd), put(2, even - odd);
  const Complex other_even = e - kNear2 * c, other_odd = kFar * (d - kNear2 * b);
  put(3, other_even + other_odd), put(4, other_even - other_odd);
}

template <class Get, class Put>
DEAL_INLINE void winograd_weights(const Get& get, const Put& put) {
  const Complex a = get(0), b = get(1), c = get(2);
  const auto pair = [&](int i, float point, float scale) DEAL_FLAT {
    const Complex even = a + point * point * c, odd = point * b;
    put(i, scale * (even + odd)), put(i + 1, scale * (even - odd));
  };
  put(0, (1 / (kNear2 * kFar2)) * a);
  pair(1, kNear, 1 / (2 * kNear2 * (kNear2 - kFar2)));
  pair(3, kFar, 1 / (2 * kFar2 * (kFar2 - kNear2)));
  put(5, c);
}

template <class Get, class Put>
DEAL_INLINE void winograd_results(const Get& get, const Put& put) {
  const Complex a = get(1), b = get(2), c = get(3), d = get(4);
  const Complex near = a + b, near_odd = a - b, far = c + d, far_odd = c - d;
  put(0, get(0) + near + far);
  put(1, kNear * near_odd + kFar * far_odd);
  put(2, kNear2 * near + kFar2 * far);
  put(3, kNear * kNear2 * near_odd + kFar * kFar2 * far_odd + get(5));
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
