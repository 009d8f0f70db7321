// The input of a tile: x as it is, or normalised.
#pragma once
#include "../../math/norm.h"
#include "tile.h"

namespace deal {
namespace DEAL_ISA {
namespace {

template <class T, class V>
struct NormalisedCurrents {
  Currents<T, V> x;
  V mean, scale, shift;
  const T* shortcut;
  int64_t pitch;

  DEAL_INLINE V operator()(int step) const {
    const V y = normalised(x(step), mean, scale, shift);
    return shortcut ? y + read<V>(shortcut + step * pitch) : y;
  }
};

// Reads x as it is.
template <class T>
class Direct {
 public:
  using S = compute_t<T>;
  using V = Quad<S>;

  // `sums`, by channel, are those of the gradient; null in the forward pass.
  Direct(const LifInput&, double*) {}

  void place(const Tile<S>&) {}
  void finish() {}

  void aim(const LifInput& a, const Tile<S>& tile, const Segment& segment) {
    x_ = static_cast<const T*>(a.x) + segment.from * a.time_stride + tile.place;
    stride_ = a.time_stride;
    ahead_ = segment.from + segment.steps < a.steps ? kSegment * stride_ : kTile - segment.from * stride_;
  }

  DEAL_INLINE Currents<T, V> currents(int i) const { return {x_ + i, stride_, ahead_}; }

  // Is given the gradient of the input of neighbouring neurons, step by step.
  struct Gradient {
    DEAL_INLINE void add(int, const V&) {}
    DEAL_INLINE void keep() const {}
  };
  DEAL_INLINE Gradient gradient(int) { return {}; }

 protected:
  const T* x_;
  int64_t stride_, ahead_;
};

// Normalises x as it is read, and adds the shortcut if there is one. In the backward pass it sums what the gradients of
// x and of the channels' parameters need.
template <class T>
class Normalised : public Direct<T> {
  using Direct<T>::x_;
  using Direct<T>::stride_;

 public:
  using typename Direct<T>::S;
  using typename Direct<T>::V;

  Normalised(const LifInput& a, double* sums) : Direct<T>(a, sums), norm_(a.norm), sums_(sums) {}

  // Consecutive tiles within one channel, or over the same set of channels, share rows and sums.
  void place(const Tile<S>& tile) {
    if (tile.neurons == neurons_ && tile.first + neurons_ <= until_) return;
    finish();
    first_ = tile.first;
    neurons_ = tile.neurons;
    fill_channels(mean_.at, norm_.mean, first_, neurons_);
    fill_channels(scale_.at, norm_.scale, first_, neurons_);
    fill_channels(shift_.at, norm_.shift, first_, neurons_);
    fill(totals_.at, neurons_, S(0));
    fill(products_.at, neurons_, S(0));
    const int64_t inner = norm_.mean.inner, end = (first_ / inner + 1) * inner;
    const bool repeats = neurons_ % (norm_.mean.channels * inner) == 0;
    until_ = repeats || first_ + kShared < end ? first_ + kShared : end;
  }

  // Adds the sums of the neurons to those of their channels, [2, channels].
  void finish() {
    if (!sums_ || neurons_ == 0) return;
    const int64_t channels = norm_.mean.channels, inner = norm_.mean.inner;
    add_channels(sums_, channels, inner, totals_.at, first_, neurons_);
    add_channels(sums_ + channels, channels, inner, products_.at, first_, neurons_);
  }

  void aim(const LifInput& a, const Tile<S>& tile, const Segment& segment) {
    Direct<T>::aim(a, tile, segment);
    shortcut_ = static_cast<const T*>(a.norm.shortcut);
    pitch_ = stride_ ? a.group : 0;
    if (shortcut_) shortcut_ += segment.from * pitch_ + tile.place;
  }

  DEAL_INLINE NormalisedCurrents<T, V> currents(int i) const {
    const T* const shortcut = shortcut_ ? shortcut_ + i : nullptr;
    return {Direct<T>::currents(i),
            read<V>(mean_.at + i),
            read<V>(scale_.at + i),
            read<V>(shift_.at + i),
            shortcut,
            pitch_};
  }

  struct Gradient {
    const T* x;
    int64_t stride;
    V mean, total, product;
    S *totals, *products;

    DEAL_INLINE void add(int step, const V& g) {
      total = total + g;
      product = product + g * (read<V>(x + step * stride) - mean);
    }
    DEAL_INLINE void keep() const {
      store(totals, total);
      store(products, product);
    }
  };
  DEAL_INLINE Gradient gradient(int i) {
    S* const totals = totals_.at + i;
    S* const products = products_.at + i;
    return {x_ + i, stride_, read<V>(mean_.at + i), read<V>(totals), read<V>(products), totals, products};
  }

 private:
  static constexpr int64_t kShared = 16384;  // most neurons whose sums are accumulated in the state type

  const Norm norm_;
  double* const sums_;
  int64_t first_, until_ = 0;
  int neurons_ = 0;
  Row<S> mean_, scale_, shift_;
  Row<S> totals_, products_;  // sums by neuron: of the gradient, and of gradient * (x - mean)
  const T* shortcut_;
  int64_t pitch_;
};

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
