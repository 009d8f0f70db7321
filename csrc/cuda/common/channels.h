// The channels of a thread's neurons: neuron n belongs to channel (n / inner) % channels.
#pragma once
#include "lanes.h"

namespace deal {
namespace cuda {

template <int L>
struct ChannelsOf {
  int64_t at[L];
  bool one;  // all lanes are of the same channel

  // `first` is a multiple of L.
  __device__ __forceinline__ ChannelsOf(int64_t channels, int64_t inner, int64_t first) : one(inner % L == 0) {
    int64_t channel = first / inner;
    int64_t place = first - channel * inner;
    channel %= channels;
#pragma unroll
    for (int i = 0; i < L; ++i) {
      at[i] = channel;
      const bool next = ++place == inner;
      channel = next ? (channel + 1 == channels ? 0 : channel + 1) : channel;
      place = next ? 0 : place;
    }
  }

  __device__ __forceinline__ Lanes<L> values(const void* of_channels) const {
    const float* const data = static_cast<const float*>(of_channels);
    if (one) return filled<L>(data[at[0]]);
    Lanes<L> result;
#pragma unroll
    for (int i = 0; i < L; ++i) result.at[i] = data[at[i]];
    return result;
  }
};

}  // namespace cuda
}  // namespace deal
