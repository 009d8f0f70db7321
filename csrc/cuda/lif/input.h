// The constants, initial state and input currents of a thread's neurons.
#pragma once
#include "../../math/neuron.h"
#include "../../math/norm.h"
#include "../common/channels.h"
#include "../common/memory.h"
#include "../common/numbers.h"
#include "kind.h"

namespace deal {
namespace cuda {
namespace {

constexpr int kWide = 4;  // neurons of a thread if rows consist of whole words, otherwise 1

template <int L, bool scalar>
__device__ __forceinline__ Lanes<L> parameter(const Parameter& p, float number, int64_t first) {
  if (scalar || p.channels <= 1) return filled<L>(p.data ? *static_cast<const float*>(p.data) : number);
  Lanes<L> values[1];
  ChannelsOf<L>(p.channels, p.inner, first).read(values, {p.data});
  return values[0];
}

template <class Kind, int L>
__device__ __forceinline__ Cell<Lanes<L>> cell_of(const LifInput& a, const Numbers& numbers, int64_t first) {
  return {Kind::of(with_numbers(a.neuron, numbers)), parameter<L, Kind::usual>(a.decay, numbers.decay, first),
          parameter<L, Kind::usual>(a.threshold, numbers.threshold, first)};
}

template <int W, int L>
__device__ __forceinline__ Lanes<L> initial_state(const LifInput& a, const Numbers& numbers, int64_t first,
                                                  int64_t left) {
  return a.v0 ? load<W, L>(a.v0, first, left) : filled<L>(numbers.rest);
}

template <class T>
__device__ __forceinline__ const T* input(const LifInput& a, int64_t step, int64_t place) {
  return static_cast<const T*>(a.x) + step * a.time_stride + place;
}

// The current is x as it is.
template <class T, int L>
struct Direct {
  static constexpr bool norm = false;
  using Currents = Queue<T, L>;

  __device__ __forceinline__ Direct(const LifInput&, int64_t) {}

  template <int W, Use use = Use::once>
  static __device__ __forceinline__ void read(Currents& currents, const LifInput& a, int64_t step, int count,
                                              int64_t place, int64_t left) {
    currents.template read<W, use>(input<T>(a, step, place), a.time_stride, count, left);
  }

  __device__ __forceinline__ Lanes<L> take(Currents& currents, const LifInput&) const { return currents.take(); }
  __device__ __forceinline__ Lanes<L> at(const Currents& currents, const LifInput&, int k) const {
    return widen(currents.at[k]);
  }
  __device__ __forceinline__ Lanes<L> x(const Currents&, int) const { return {}; }
};

// The current is x normalised, plus the shortcut if there is one.
template <class T, int L>
struct Normalised {
  static constexpr bool norm = true;
  struct Currents {
    Queue<T, L> x, shortcut;
  };

  Lanes<L> mean, scale, shift;

  __device__ __forceinline__ Normalised(const LifInput& a, int64_t first) {
    const Norm& norm = a.norm;
    Lanes<L> values[3];
    ChannelsOf<L>(norm.mean.channels, norm.mean.inner, first)
        .read(values, {norm.mean.data, norm.scale.data, norm.shift.data});
    mean = values[0], scale = values[1], shift = values[2];
  }

  template <int W, Use use = Use::once>
  static __device__ __forceinline__ void read(Currents& currents, const LifInput& a, int64_t step, int count,
                                              int64_t place, int64_t left) {
    currents.x.template read<W, use>(input<T>(a, step, place), a.time_stride, count, left);
    if (!a.norm.shortcut) return;
    const int64_t stride = a.time_stride ? a.group : 0;
    const T* const shortcut = static_cast<const T*>(a.norm.shortcut) + step * stride + place;
    currents.shortcut.template read<W>(shortcut, stride, count, left);
  }

  __device__ __forceinline__ Lanes<L> take(Currents& currents, const LifInput& a) const {
    const Lanes<L> current = normalised(currents.x.take(), mean, scale, shift);
    return a.norm.shortcut ? current + currents.shortcut.take() : current;
  }
  __device__ __forceinline__ Lanes<L> at(const Currents& currents, const LifInput& a, int k) const {
    const Lanes<L> current = normalised(widen(currents.x.at[k]), mean, scale, shift);
    return a.norm.shortcut ? current + widen(currents.shortcut.at[k]) : current;
  }
  __device__ __forceinline__ Lanes<L> x(const Currents& currents, int k) const { return widen(currents.x.at[k]); }
};

}  // namespace
}  // namespace cuda
}  // namespace deal
