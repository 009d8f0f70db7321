// The neurons left over when no whole block of them remains: they are worked on in a padded copy.
#pragma once
#include <cstdlib>

#include "lif_tile.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// Padded copies of the neurons from `first` to the end of every row. Rooms made for results are
// copied back at the end.
template <class S>
class Rest {
  static constexpr int B = kBlock<S>;
  static constexpr size_t kNear = 8192;

 public:
  Rest(int64_t first, int64_t neurons) : first_(first), count_(neurons - first) {}
  Rest(const Rest&) = delete;
  ~Rest() {
    for (const Copy* c = copies_; c < copies_ + copied_; ++c) {
      for (int64_t row = 0; c->result && row < c->rows; ++row)
        __builtin_memcpy(c->result + row * c->result_stride, c->room + row * c->stride, c->used);
      if (c->owned) free(c->room);
    }
    if (!norm_.mean.data) return;
    const int64_t channels = norm_.mean.channels, inner = norm_.mean.inner;
    for (int i = 0; i < 2; ++i)
      add_channels(channel_sums_ + i * channels, channels, inner, neuron_sums_ + i * B, first_, int(count_));
  }

  // Rows of values that lie `stride` elements apart. What is null stays null.
  template <class T>
  T* of(const void* source, int64_t rows, int64_t stride) {
    if (!source) return nullptr;
    T* const room = reinterpret_cast<T*>(add(rows, sizeof(T) * B).room);
    const T* from = static_cast<const T*>(source) + first_;
    for (int64_t row = 0; row < rows; ++row) __builtin_memcpy(room + row * B, from + row * stride, sizeof(T) * count_);
    return room;
  }

  template <class T>
  T* result(void* target, int64_t rows, int64_t stride) {
    if (!target) return nullptr;
    Copy& copy = add(rows, sizeof(T) * B);
    copy.result = reinterpret_cast<char*>(static_cast<T*>(target) + first_);
    copy.result_stride = int64_t(sizeof(T)) * stride;
    copy.used = sizeof(T) * count_;
    return reinterpret_cast<T*>(copy.room);
  }

  // Rows of bits, `stride` bytes apart.
  uint8_t* bits(void* target, int64_t rows, int64_t stride) {
    Copy& copy = add(rows, B / 8);
    copy.result = static_cast<char*>(target) + first_ / 8;
    copy.result_stride = stride;
    copy.used = size_t(count_ + 7) / 8;
    return reinterpret_cast<uint8_t*>(copy.room);
  }

  // Bits of neurons that do not exist are zero.
  void clear_padding(uint8_t* bits, int64_t rows) const {
    if (count_ % 8 == 0) return;
    for (int64_t row = 0; row < rows; ++row) bits[row * (B / 8) + count_ / 8] &= uint8_t((1 << count_ % 8) - 1);
  }

  // The call, for these neurons only; its results are still those of the whole.
  template <class T, class Lif>
  Lif inputs(const Lif& a) {
    Lif part = a;
    part.neurons = B;
    part.x = of<T>(a.x, a.time_stride ? a.steps : 1, a.time_stride);
    part.time_stride = a.time_stride ? B : 0;
    part.v0 = of<S>(a.v0, 1, 0);
    part.decay = parameter(a.decay);
    part.threshold = parameter(a.threshold);
    if (!a.norm.mean.data) return part;
    const int64_t stride = a.time_stride ? a.neurons : 0;
    part.norm = {spread(a.norm.mean), spread(a.norm.scale), spread(a.norm.shift),
                 of<T>(a.norm.shortcut, stride ? a.steps : 1, stride)};
    return part;
  }

  // Room for sums of each neuron, which are added to those of the channels at the end.
  double* sums(const Norm& norm, double* channels) {
    channel_sums_ = channels;
    norm_ = norm;
    return neuron_sums_;
  }

 private:
  struct Copy {
    char* room;
    int64_t rows;
    size_t stride;
    char* result;
    int64_t result_stride;
    size_t used;
    bool owned;
  };

  // A small layer, all of which may be left over, is spared the time of malloc.
  Copy& add(int64_t rows, size_t stride) {
    Copy& copy = copies_[copied_++];
    const size_t bytes = size_t(rows) * stride;
    const bool fits = bytes <= kNear - near_used_;
    char* const room = fits ? near_ + near_used_ : static_cast<char*>(calloc(1, bytes));
    if (fits) __builtin_memset(room, 0, bytes), near_used_ += bytes;
    copy = {room, rows, stride, nullptr, 0, 0, !fits};
    return copy;
  }

  Parameter parameter(const Parameter& p) { return p.channels <= 1 ? p : spread(p); }

  // A value for each neuron; those that do not exist have zeros.
  Parameter spread(const Parameter& p) {
    S* const room = reinterpret_cast<S*>(add(1, sizeof(S) * B).room);
    fill_channels(room, p, first_, int(count_));
    return {room, B, 1};
  }

  int64_t first_, count_;
  Copy copies_[16];
  int copied_ = 0;
  alignas(64) char near_[kNear];
  size_t near_used_ = 0;
  Norm norm_ = {};
  double neuron_sums_[2 * B] = {};
  double* channel_sums_ = nullptr;
};

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
