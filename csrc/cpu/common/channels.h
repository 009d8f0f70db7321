// The channels of a row of consecutive neurons: neuron n belongs to channel (n / inner) % channels.
#pragma once
#include "../../types.h"
#include "buffer.h"

namespace deal {
namespace DEAL_ISA {
namespace {

template <class S>
DEAL_INLINE void fill(S* row, int count, S value) {
  const Pack<S> all = Pack<S>{} + value;
  int i = 0;
  for (; i + Pack<S>::lanes <= count; i += Pack<S>::lanes) store(row + i, all);
  for (; i < count; ++i) row[i] = value;
}

// Calls run(index in the row, count, channel) for runs of neurons of one channel, or, if inner == 1, for runs of
// consecutive channels. The row begins at neuron `first`.
template <class Run>
DEAL_INLINE void each_channel(int64_t channels, int64_t inner, int64_t first, int count, const Run& run) {
  int64_t channel = first / inner % channels;
  int64_t left = inner == 1 ? channels - channel : inner - first % inner;
  for (int i = 0; i < count;) {
    const int length = left < count - i ? int(left) : count - i;
    run(i, length, channel);
    i += length;
    channel = inner == 1 || channel + 1 == channels ? 0 : channel + 1;
    left = inner == 1 ? channels : inner;
  }
}

// Writes the parameter of every neuron of a row.
template <class S>
void fill_channels(S* row, const Parameter& p, int64_t first, int count) {
  const S* data = static_cast<const S*>(p.data);
  each_channel(p.channels, p.inner, first, count, [&](int i, int length, int64_t channel) {
    if (p.inner == 1) __builtin_memcpy(row + i, data + channel, sizeof(S) * length);
    else fill(row + i, length, data[channel]);
  });
}

// Adds the value of every neuron to the sum of its channel.
template <class S>
void add_channels(double* sums, int64_t channels, int64_t inner, const S* row, int64_t first, int count) {
  each_channel(channels, inner, first, count, [&](int i, int length, int64_t channel) {
    if (inner == 1) {
      for (int k = 0; k < length; ++k) sums[channel + k] += double(row[i + k]);
    } else {
      sums[channel] += sum(row + i, length);
    }
  });
}

// Sums by channel, separate for each thread, added up in the order of the threads.
class ChannelSums {
 public:
  ChannelSums(int64_t count, int threads)
      : count_(count), threads_(threads), sums_(count * threads, Fill::zeros) {}

  double* of(int thread) const { return sums_.get() + thread * count_; }

  template <class S>
  void write(S* result) const {
    for (int64_t i = 0; i < count_; ++i) {
      double total = 0;
      for (int thread = 0; thread < threads_; ++thread) total += of(thread)[i];
      result[i] = S(total);
    }
  }

 private:
  int64_t count_;
  int threads_;
  Buffer<double> sums_;
};

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
