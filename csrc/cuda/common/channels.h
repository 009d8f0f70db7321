// The channels of a thread's neurons: neuron n belongs to channel (n / inner) % channels.
#pragma once
#include "lanes.h"

namespace deal {
namespace cuda {

template <int L>
struct ChannelsOf {
  int64_t channels, inner;
  int64_t channel, place;  // of the first lane; its place among the neurons of its channel that lie side by side

  // `first` is a multiple of L.
  __device__ __forceinline__ ChannelsOf(int64_t channels, int64_t inner, int64_t first)
      : channels(channels), inner(inner), channel(first / inner), place(first - channel * inner) {
    channel %= channels;
  }

  // Calls set(lane, channel) for every lane.
  template <class Set>
  __device__ __forceinline__ void each(const Set& set) const {
    if (inner % L == 0) {
#pragma unroll
      for (int i = 0; i < L; ++i) set(i, channel);
      return;
    }
    int64_t at = channel, left = inner - place;
#pragma unroll
    for (int i = 0; i < L; ++i) {
      set(i, at);
      const bool next = --left == 0;
      at = next ? (at + 1 == channels ? 0 : at + 1) : at;
      left = next ? inner : left;
    }
  }

  // The values of the lanes in arrays with one for each channel.
  template <int n>
  __device__ __forceinline__ void read(Lanes<L> (&values)[n], const void* const (&arrays)[n]) const {
    each([&](int lane, int64_t at) {
#pragma unroll
      for (int k = 0; k < n; ++k) values[k].at[lane] = static_cast<const float*>(arrays[k])[at];
    });
  }
};

}  // namespace cuda
}  // namespace deal
