// The images of a stage, buffers for their rows, and the loop over stages and samples.
#pragma once
#include "plan.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int64_t kPixelsWorthAThread = 1 << 12;

// The image of one sample, with an offset by channel that is added where it is read.
template <class S>
struct Image {
  DType dtype;
  const void* data;
  int64_t first;
  S* offset;  // may be null
};

template <class S>
void fetch(const Plan<S>& plan, const Image<S>& image, int64_t channel, int64_t y, S* to) {
  read_row(image.dtype, image.data, image.first + (channel * plan.a.height + y) * plan.a.width, to, plan.width);
  if (!image.offset || image.offset[channel] == 0) return;
  const S offset = image.offset[channel];
  for (int i = 0; i < plan.width; i += Pack<S>::lanes) store(to + i, load(to + i) + offset);
  clear(to, plan.width, plan.count);
}

// Whether rows can be used directly from memory.
template <class S>
bool lies_ready(const Plan<S>& plan, const Image<S>& image) {
  const bool own_type = image.dtype == (sizeof(S) == 8 ? DType::float64 : DType::float32);
  return own_type && plan.width == plan.count && !image.offset;
}

// A row, directly in memory or copied into the buffer.
template <class S>
const S* row_of(const Plan<S>& plan, const Image<S>& image, int64_t channel, int64_t y, S* buffer) {
  if (lies_ready(plan, image))
    return static_cast<const S*>(image.data) + image.first + (channel * plan.a.height + y) * plan.a.width;
  fetch(plan, image, channel, y, buffer);
  return buffer;
}

// Zero-initialised rows.
template <class S>
class Lines {
 public:
  Lines(const Plan<S>& plan, int64_t count) : pitch_(plan.pitch), memory_(count * plan.pitch, Fill::zeros) {}
  S* operator[](int64_t line) const { return memory_.get() + line * pitch_ + kMargin; }

 private:
  const int64_t pitch_;
  Buffer<S> memory_;
};

// The last rows of an image, read in order.
template <class S>
class RowRing {
 public:
  explicit RowRing(const Plan<S>& plan)
      : plan_(plan), held_(plan.blur_reach > kBlurReach ? 32 : 16), lines_(plan, held_ * plan.a.channels) {
    static_assert(2 * kBlurReach < 16 && 2 * kWideReach < 32, "the rows of a window are held");
  }

  // The first row to be read is `first`.
  void start(const Image<S>& image, int64_t first) {
    image_ = image;
    ready_ = lies_ready(plan_, image) ? static_cast<const S*>(image.data) + image.first : nullptr;
    next_ = first < 0 ? 0 : first;
  }
  // Reads up to row `last` or the end of the image.
  void read_to(int64_t last) {
    for (; !ready_ && next_ <= last && next_ < plan_.a.height; ++next_)
      for (int64_t c = 0; c < plan_.a.channels; ++c) fetch(plan_, image_, c, next_, line(c, next_));
  }
  const S* row(int64_t channel, int64_t y) const {
    return ready_ ? ready_ + (channel * plan_.a.height + y) * plan_.a.width : line(channel, y);
  }

 private:
  S* line(int64_t channel, int64_t y) const { return lines_[channel * held_ + (y & (held_ - 1))]; }

  const Plan<S>& plan_;
  const int64_t held_;  // rows of a channel, a power of two
  const Lines<S> lines_;
  Image<S> image_{};
  const S* ready_ = nullptr;  // the image, if its rows are used directly
  int64_t next_ = 0;
};

// Runs all stages of every sample with workers, in order or in reverse. start(sample, stage, slot) tells a worker what
// to work on. A stage takes two passes over the rows, look() and work(), because the second needs all results of the
// first. settle() is called after a sample's stage, finish() after all stages of a sample. Threads take whole samples
// if there are enough of them, and each thread has a slot of the buffers; otherwise the rows of all samples are
// `shared` among the threads, and each sample has a slot.
template <class Worker, class Call>
void each_stage(const DegradationInput& a, const Call& call, int threads, bool shared, bool reverse) {
  const auto stage = [&](int64_t i) { return reverse ? a.stages - 1 - i : i; };
  if (!shared) {
    parallel_for(a.batch, 1, threads, [&](int64_t begin, int64_t end, int thread) {
      Worker worker(call);
      for (int64_t sample = begin; sample < end; ++sample) {
        for (int64_t i = 0; i < a.stages; ++i) {
          worker.start(sample, stage(i), thread);
          worker.look(0, a.height);
          worker.work(0, a.height);
          worker.settle();
        }
        worker.finish(0, a.height);
      }
    });
    return;
  }
  // Calls run(worker, first row, end) for ranges of rows of all samples.
  const auto each_band = [&](int64_t at, const auto& run) {
    parallel_for(a.batch * a.height, 1, threads, [&](int64_t begin, int64_t end, int) {
      Worker worker(call);
      while (begin < end) {
        const int64_t sample = begin / a.height, top = begin % a.height;
        const int64_t bottom = top + (end - begin) < a.height ? top + (end - begin) : a.height;
        worker.start(sample, at, sample);
        run(worker, top, bottom);
        begin += bottom - top;
      }
    });
  };
  Worker all(call);
  for (int64_t i = 0; i < a.stages; ++i) {
    each_band(stage(i), [](Worker& worker, int64_t begin, int64_t end) { worker.look(begin, end); });
    each_band(stage(i), [](Worker& worker, int64_t begin, int64_t end) { worker.work(begin, end); });
    for (int64_t sample = 0; sample < a.batch; ++sample) {
      all.start(sample, stage(i), sample);
      all.settle();
    }
  }
  each_band(stage(a.stages - 1), [](Worker& worker, int64_t begin, int64_t end) { worker.finish(begin, end); });
}

// Whether the threads share the rows of each sample.
inline bool shares_threads(const DegradationInput& a, int threads) {
  return a.batch % threads && a.batch < 4 * threads;
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
