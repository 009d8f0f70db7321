// The constants, initial state and input currents of a thread's neurons.
#pragma once
#include "../../math/neuron.h"
#include "../../math/norm.h"
#include "../common/channels.h"
#include "../common/memory.h"
#include "../common/numbers.h"

namespace deal {
namespace cuda {
namespace {

constexpr int kWide = 4;  // neurons of a thread if rows consist of whole words, otherwise 1

// Whether wide threads can run the neuron. The others need more registers.
inline bool is_usual(const Neuron& n) {
  return n.reset <= Reset::none && n.carries && !n.own_amount && n.scale == 1 && n.surrogate != Surrogate::given;
}

template <int L>
__device__ __forceinline__ Lanes<L> parameter(const Parameter& p, float number, int64_t first) {
  if (p.channels <= 1) return filled<L>(p.data ? *static_cast<const float*>(p.data) : number);
  return ChannelsOf<L>(p.channels, p.inner, first).values(p.data);
}

template <int L>
__device__ __forceinline__ Cell<Lanes<L>> cell_of(const LifInput& a, const Numbers& numbers, int64_t first) {
  Neuron kind = with_numbers(a.neuron, numbers);
  if (L == kWide) {  // what is_usual says, for the compiler
    kind.reset = kind.reset == Reset::hard ? Reset::hard : kind.reset == Reset::soft ? Reset::soft : Reset::none;
    kind.carries = true;
    kind.own_amount = false;
    kind.scale = 1;
  }
  return {kind, parameter<L>(a.decay, numbers.decay, first), parameter<L>(a.threshold, numbers.threshold, first)};
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
  __device__ __forceinline__ void read(Currents& currents, const LifInput& a, int64_t step, int count, int64_t place,
                                       int64_t left) const {
    currents.template read<W, use>(input<T>(a, step, place), a.time_stride, count, left);
  }

  __device__ __forceinline__ Lanes<L> take(Currents& currents, const LifInput&) const { return currents.take(); }
};

// The current is x normalised, plus the shortcut if there is one.
template <class T, int L>
struct Normalised {
  static constexpr bool norm = true;
  struct Currents {
    Queue<T, L> x, shortcut;
  };

  Lanes<L> mean, scale, shift;

  __device__ __forceinline__ Normalised(const LifInput& a, int64_t first)
      : Normalised(a.norm, ChannelsOf<L>(a.norm.mean.channels, a.norm.mean.inner, first)) {}

  __device__ __forceinline__ Normalised(const Norm& norm, const ChannelsOf<L>& channels)
      : mean(channels.values(norm.mean.data)),
        scale(channels.values(norm.scale.data)),
        shift(channels.values(norm.shift.data)) {}

  template <int W, Use use = Use::once>
  __device__ __forceinline__ void read(Currents& currents, const LifInput& a, int64_t step, int count, int64_t place,
                                       int64_t left) const {
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
};

}  // namespace
}  // namespace cuda
}  // namespace deal
