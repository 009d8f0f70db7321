// The last neurons of a group.
#pragma once
#include "../common/tail.h"
#include "tile.h"

namespace deal {
namespace DEAL_ISA {
namespace {

template <class S>
class LifTail : public GroupTail<S> {
  static constexpr int B = kQuad<S>;
  using Tail<S>::first_;
  using Tail<S>::count_;

 public:
  using GroupTail<S>::GroupTail;
  ~LifTail() {
    if (!norm_.mean.data) return;
    const int64_t channels = norm_.mean.channels, inner = norm_.mean.inner;
    for (int i = 0; i < 2; ++i)
      add_channels(channel_sums_ + i * channels, channels, inner, neuron_sums_ + i * B, first_, int(count_));
  }

  // Rows of bits for a result whose rows are `stride` bytes apart.
  uint8_t* bits(void* target, int64_t rows, int64_t stride) {
    typename Tail<S>::Copy& copy = this->add(rows, B / 8);
    copy.result = static_cast<char*>(target) + first_ / 8;
    copy.result_stride = stride;
    copy.used = size_t(count_ + 7) / 8;
    return reinterpret_cast<uint8_t*>(copy.data);
  }

  // Clears the bits past the last neuron.
  void clear_padding(uint8_t* bits, int64_t rows) const {
    if (count_ % 8 == 0) return;
    for (int64_t row = 0; row < rows; ++row) bits[row * (B / 8) + count_ / 8] &= uint8_t((1 << count_ % 8) - 1);
  }

  // The call restricted to these neurons. Its results still point to the original ones.
  template <class T, class Lif>
  Lif inputs(const Lif& a) {
    Lif part = a;
    part.neurons = part.group = B;
    part.x = this->template input_of<T>(a);
    part.time_stride = a.time_stride ? B : 0;
    part.v0 = this->template of<S>(a.v0, 1, 0);
    part.decay = this->parameter(a.decay);
    part.threshold = this->parameter(a.threshold);
    if (!a.norm.mean.data) return part;
    part.norm = {this->spread(a.norm.mean), this->spread(a.norm.scale), this->spread(a.norm.shift),
                 a.time_stride ? this->template steps_of<T>(a.norm.shortcut) : this->template of<T>(a.norm.shortcut, 1, 0)};
    return part;
  }

  // Sums for each neuron. The destructor adds them to the sums of the channels.
  double* sums(const Norm& norm, double* channels) {
    channel_sums_ = channels;
    norm_ = norm;
    return neuron_sums_;
  }

 private:
  Norm norm_ = {};
  double neuron_sums_[2 * B] = {};
  double* channel_sums_ = nullptr;
};

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
