// The last neurons, too few for a whole group: they are processed in a padded copy.
#pragma once
#include "tile.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// Padded copies of the neurons from `first` to the end of every row. Results are copied back by the destructor.
template <class S>
class Tail {
  static constexpr int B = kQuad<S>;
  static constexpr size_t kInline = 8192;

 public:
  Tail(int64_t first, int64_t neurons) : first_(first), count_(neurons - first) {}
  Tail(const Tail&) = delete;
  ~Tail() {
    for (const Copy* c = copies_; c < copies_ + copied_; ++c) {
      for (int64_t row = 0; c->result && row < c->rows; ++row)
        __builtin_memcpy(c->result + row * c->result_stride, c->data + row * c->stride, c->used);
    }
    if (!norm_.mean.data) return;
    const int64_t channels = norm_.mean.channels, inner = norm_.mean.inner;
    for (int i = 0; i < 2; ++i)
      add_channels(channel_sums_ + i * channels, channels, inner, neuron_sums_ + i * B, first_, int(count_));
  }

  // Copies rows that are `stride` elements apart. Null stays null.
  template <class T>
  T* of(const void* source, int64_t rows, int64_t stride) {
    if (!source) return nullptr;
    T* const data = reinterpret_cast<T*>(add(rows, sizeof(T) * B).data);
    const T* from = static_cast<const T*>(source) + first_;
    for (int64_t row = 0; row < rows; ++row) __builtin_memcpy(data + row * B, from + row * stride, sizeof(T) * count_);
    return data;
  }

  template <class T>
  T* result(void* target, int64_t rows, int64_t stride) {
    if (!target) return nullptr;
    Copy& copy = add(rows, sizeof(T) * B);
    copy.result = reinterpret_cast<char*>(static_cast<T*>(target) + first_);
    copy.result_stride = int64_t(sizeof(T)) * stride;
    copy.used = sizeof(T) * count_;
    return reinterpret_cast<T*>(copy.data);
  }

  // Rows of bits for a result whose rows are `stride` bytes apart.
  uint8_t* bits(void* target, int64_t rows, int64_t stride) {
    Copy& copy = add(rows, B / 8);
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

  // Sums for each neuron. The destructor adds them to the sums of the channels.
  double* sums(const Norm& norm, double* channels) {
    channel_sums_ = channels;
    norm_ = norm;
    return neuron_sums_;
  }

 private:
  struct Copy {
    char* data;
    int64_t rows;
    size_t stride;
    char* result;
    int64_t result_stride;
    size_t used;
    Buffer<char> memory;  // empty if the copy is in inline_
  };

  // Small copies need no malloc: a small layer may consist of these neurons alone.
  Copy& add(int64_t rows, size_t stride) {
    Copy& copy = copies_[copied_++];
    const size_t bytes = size_t(rows) * stride;
    copy.result = nullptr;
    copy.rows = rows;
    copy.stride = stride;
    if (bytes <= kInline - inline_used_) {
      copy.data = inline_ + inline_used_;
      __builtin_memset(copy.data, 0, bytes);
      inline_used_ += bytes;
    } else {
      copy.memory = Buffer<char>(int64_t(bytes), Fill::zeros);
      copy.data = copy.memory.get();
    }
    return copy;
  }

  Parameter parameter(const Parameter& p) { return p.channels <= 1 ? p : spread(p); }

  // One value per neuron, zero in the padding.
  Parameter spread(const Parameter& p) {
    S* const data = reinterpret_cast<S*>(add(1, sizeof(S) * B).data);
    fill_channels(data, p, first_, int(count_));
    return {data, B, 1};
  }

  int64_t first_, count_;
  Copy copies_[16];
  int copied_ = 0;
  alignas(64) char inline_[kInline];
  size_t inline_used_ = 0;
  Norm norm_ = {};
  double neuron_sums_[2 * B] = {};
  double* channel_sums_ = nullptr;
};

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
