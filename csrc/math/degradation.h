// The ops of a degradation mixture for a single pixel. deal_kernels/degradation/reference.py is the same in Python.
#pragma once
#include "padding.h"
#include "platform.h"

namespace deal {

// Half-widths of the windows of gaussian_blur and of wide_blur.
constexpr int kBlurReach = 4, kWideReach = 9;

// Clamps to [0, 1]. NaN stays NaN.
template <class V>
DEAL_INLINE V clamped(const V& v) {
  using S = scalar_t<V>;
  return at_most(S(1), at_least(S(0), v));
}

// The gradient of clamped(v), given the gradient of its result.
template <class V>
DEAL_INLINE V passed(const V& v, const V& grad) {
  using S = scalar_t<V>;
  const V none{};
  return select(v >= S(0), select(v <= S(1), grad, none), none);
}

// Contrast, saturation and sharpness blend the image with a flatter one and clamp the result. `rest` is 1 - share.
template <class V>
DEAL_INLINE V blended(const V& image, const V& flat, scalar_t<V> share, scalar_t<V> rest) {
  return image * share + flat * rest;
}

// The weight of a channel in the gray value.
template <class S>
DEAL_INLINE S gray_share(int64_t channel, int64_t channels) {
  return channels != 3 ? S(1) / S(channels) : channel == 0 ? S(0.2989) : channel == 1 ? S(0.587) : S(0.114);
}

template <class V>
DEAL_INLINE V gray(const V& red, const V& green, const V& blue) {
  using S = scalar_t<V>;
  return red * S(0.2989) + green * S(0.587) + blue * S(0.114);
}

// The smooth image that sharpness blends with, at a pixel that is not on the border: from the sum of its 3 x 3
// neighbourhood and its own value. The operator is self-adjoint if the gradients of border pixels are set to zero.
template <class V>
DEAL_INLINE V smoothed(const V& nine, const V& own) {
  using S = scalar_t<V>;
  return (nine + own * S(4)) * S(1.0 / 13);
}

// The argument `step` of posterized: 2^(8 - bits).
template <class S>
DEAL_INLINE S posterize_step(int bits) {
  return S(1 << (8 - bits));
}

// Rounds down to 8-bit levels that are multiples of `step`. NaN stays NaN.
template <class V>
DEAL_INLINE V posterized(const V& v, scalar_t<V> step) {
  using S = scalar_t<V>;
  constexpr S whole = sizeof(S) == 8 ? S(1ll << 52) : S(1 << 23);  // adding it rounds to an integer
  const V level = clamped(v) * S(255) * (S(1) / step);
  const V nearest = (level + whole) - whole;
  return (nearest - select(nearest > level, S(1), S(0))) * step / S(255);
}

// Rounds to the nearest of levels + 1 values from 0 to 1, of two equally near ones to the even one. NaN stays NaN.
template <class V>
DEAL_INLINE V quantised(const V& v, scalar_t<V> levels) {
  using S = scalar_t<V>;
  constexpr S whole = sizeof(S) == 8 ? S(1ll << 52) : S(1 << 23);  // adding it rounds to an integer
  return ((clamped(v) * levels + whole) - whole) / levels;
}

// The value that replaces v, or v where that is NaN.
template <class V>
DEAL_INLINE V replaced(const V& v, const V& value) {
  return select(value <= value, value, v);
}

// The larger of two values, the first if they are equal, NaN if either is NaN.
template <class V>
DEAL_INLINE V larger(const V& first, const V& second) {
  return select(second > first, second, select(second <= second, first, second));
}

// Whether the maximum of a window is at the second of two positions, of which the second lies in a later column or row.
// Of equal values the first one counts, of several NaNs the last.
template <class V>
DEAL_INLINE auto at_second(const V& first, const V& second, const V& first_row, const V& second_row) {
  const auto number = second <= second, known = first <= first;
  return (second > first) | ((second >= first) & (second_row < first_row)) |
         ((!number) & (known | (second_row >= first_row)));
}

// The weights of a blur's window, by distance from its center; 0 beyond its reach.
template <class S>
struct Taps {
  S at[kWideReach + 1];
};

template <class S>
DEAL_INLINE void gaussian(double deviation, int reach, Taps<S>& taps) {
  const auto bell = [=](int k) { return exp(-0.5 * (k / deviation) * (k / deviation)); };
  double total = 1;
  for (int k = 1; k <= reach; ++k) total += 2 * bell(k);
  for (int k = 0; k <= kWideReach; ++k) taps.at[k] = k <= reach ? S(bell(k) / total) : S(0);
}

// The part of the two pixels at a distance k in a blurred one.
template <class V, class At>
DEAL_INLINE V two_away(int k, const At& at, const Taps<scalar_t<V>>& taps) {
  return (at(-k) + at(k)) * taps.at[k];
}

// The part of the pixels at the distances from k, an odd number, to `reach`, added from the farthest to the nearest.
template <class V, int reach, int k, class At>
DEAL_INLINE V from_outside(const At& at, const Taps<scalar_t<V>>& taps) {
  if constexpr (k == reach) {
    return two_away<V>(k, at, taps);
  } else {
    const V two = two_away<V>(k + 1, at, taps) + two_away<V>(k, at, taps);
    if constexpr (k + 1 == reach) return two;
    else return from_outside<V, reach, k + 2>(at, taps) + two;
  }
}

// The blur along one axis. at(k) is the value k pixels away.
template <class V, int reach, class At>
DEAL_INLINE V blurred(const At& at, const Taps<scalar_t<V>>& taps) {
  return from_outside<V, reach, 1>(at, taps) + at(0) * taps.at[0];
}

// The weight of the pixel `to` in the blurred pixel `from`, directly and by reflection. The adjoint of the blur along
// an axis at `to` is the sum of these weights times the gradients at all `from` within the blur's reach.
template <class S>
DEAL_INLINE S reflected_tap(const Taps<S>& taps, int64_t from, int64_t to, int64_t count) {
  const int64_t apart = from < to ? to - from : from - to, low = from + to, high = 2 * (count - 1) - low;
  S tap = apart <= kWideReach ? taps.at[apart] : S(0);
  if (to > 0 && low <= kWideReach) tap = tap + taps.at[low];
  if (to < count - 1 && high <= kWideReach) tap = tap + taps.at[high];
  return tap;
}

// The position in the source axis of pixel `at` of the resized axis. `scale` is the length of the source divided by the
// length of the result.
template <class S>
DEAL_INLINE S source(int64_t at, S scale) {
  return scale * (S(at) + S(0.5)) - S(0.5);
}

// Linear interpolation: (1 - share) * value(low) + share * value(high).
template <class S>
struct Between {
  int64_t low, high;
  S share;
};

template <class S>
DEAL_INLINE Between<S> between(int64_t at, S scale, int64_t count) {
  const S place = at_least(S(0), source(at, scale));
  const int64_t found = int64_t(place), low = found < count ? found : count - 1;
  return {low, low + 1 < count ? low + 1 : low, place - S(low)};
}

// Cubic interpolation from four pixels. Pixels outside of the image have the value at its edge.
template <class S>
struct Cubic {
  int64_t first;
  S weight[4];
};

template <class S>
DEAL_INLINE S cubic_near(S t) {
  return (S(1.25) * t - S(2.25)) * t * t + S(1);
}

template <class S>
DEAL_INLINE S cubic_far(S t) {
  return ((S(-0.75) * t + S(3.75)) * t - S(6)) * t + S(3);
}

// For images that shrink: no source position is negative.
template <class S>
DEAL_INLINE Cubic<S> cubic(int64_t at, S scale) {
  const S place = source(at, scale);
  const int64_t low = int64_t(place);
  const S t = place - S(low), u = S(1) - t;
  return {low - 1, {cubic_far(t + S(1)), cubic_near(t), cubic_near(u), cubic_far(u + S(1))}};
}

}  // namespace deal
