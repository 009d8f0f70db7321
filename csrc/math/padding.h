// Which pixel of an axis the positions of the padded axis read, and which positions read a pixel.
#pragma once
#include "../types.h"
#include "platform.h"

namespace deal {

// Reflects an index that is less than `count` outside of [0, count).
template <class Index>
DEAL_INLINE Index reflected(Index at, Index count) {
  return at < 0 ? -at : at >= count ? 2 * (count - 1) - at : at;
}

// The pixel that is read at an index in [0, count) or outside; -1 stands for a zero.
template <class Index>
DEAL_INLINE Index pixel_at(Index at, Index count, Padding mode) {
  if (mode == Padding::reflect) return reflected(at, count);
  if (mode == Padding::replicate) return at < 0 ? 0 : at < count ? at : count - 1;
  return at >= 0 && at < count ? at : -1;
}

// An axis of `count` pixels with padding before and after it.
template <class Index>
struct PaddedAxis {
  Index count, before, after;
  Padding mode;
};

// The positions that read one pixel: position(k) for k from `begin` to `end`, in ascending order.
template <class Index>
struct Readers {
  Index own, back, ahead;  // the pixel's own position, and steps from it
  Index begin, end;

  DEAL_INLINE Index position(Index k) const { return own + k * (k < 0 ? back : ahead); }
};

template <class Index>
DEAL_INLINE Readers<Index> readers_of(Index at, const PaddedAxis<Index>& a) {
  const Index own = at + a.before, last = a.count - 1;
  if (a.mode == Padding::zeros) return {own, 0, 0, 0, 0};
  if (a.mode == Padding::replicate) return {own, 1, 1, at == 0 ? -a.before : 0, at == last ? a.after : 0};
  const bool below = at > 0 && at <= a.before, above = at < last && at >= last - a.after;
  return {own, 2 * at, 2 * (last - at), below ? -1 : 0, above ? 1 : 0};
}

}  // namespace deal
