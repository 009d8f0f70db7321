// The last neurons, too few for a whole group: they are processed in a padded copy.
#pragma once
#include "../../math/place.h"
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

  // A parameter of these neurons.
  Parameter parameter(const Parameter& p) { return p.channels <= 1 ? p : spread(p); }

 protected:
  // One value per neuron, zero in the padding.
  Parameter spread(const Parameter& p) {
    S* const data = reinterpret_cast<S*>(add(1, sizeof(S) * B).data);
    fill_channels(data, p, first_, int(count_));
    return {data, B, 1};
  }

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

  const int64_t first_, count_;

 private:
  Copy copies_[24];
  int copied_ = 0;
  alignas(64) char inline_[kInline];
  size_t inline_used_ = 0;
};

// Those of a call whose neurons lie in groups.
template <class S>
class GroupTail : public Tail<S> {
 public:
  // The neurons from `first` to the end of its group.
  template <class Call>
  GroupTail(const Call& a, int64_t first)
      : Tail<S>(first, first / a.group * a.group + a.group), skipped_(place_of(a, first) - first), steps_(a.steps),
        pitch_(a.group) {}

  // Those of x.
  template <class T, class Call>
  T* input_of(const Call& a) {
    return this->template of<T>(static_cast<const T*>(a.x) + skipped_, a.time_stride ? steps_ : 1, a.time_stride);
  }

  // Those of a tensor that has all steps, without gaps between them.
  template <class T>
  T* steps_of(const void* source) {
    return this->template of<T>(source ? static_cast<const T*>(source) + skipped_ : nullptr, steps_, pitch_);
  }

  template <class T>
  T* steps_of_result(void* target) {
    return this->template result<T>(target ? static_cast<T*>(target) + skipped_ : nullptr, steps_, pitch_);
  }

 private:
  const int64_t skipped_, steps_, pitch_;  // what comes before, beside the neurons; the number of steps; between two
};

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
