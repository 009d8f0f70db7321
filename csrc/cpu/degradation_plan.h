// What a call of the degradation mixture works with: its operations, the tables of its resizes, images and rows.
#pragma once
#include "../types.h"

#include <cstdlib>

#include "../math/degradation.h"
#include "parallel.h"
#include "rows.h"
#include "twice.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kMargin = 16;  // values before and after a row, for the windows of its ends
constexpr int64_t kPixelsWorthAThread = 1 << 12;
constexpr int kRing = 16;    // rows of an image that are held: more than a window has

// Calls body(column) for every vector of a row.
template <class S, class Body>
DEAL_INLINE void each_vector(int count, const Body& body) {
  for (int i = 0; i < count; i += Pack<S>::lanes) body(i);
}

template <class V>
double sum_of_lanes(const V& lanes) {
  double total = 0;
  add_lanes(total, lanes);
  return total;
}

// The sum of the products of two rows, one of which is zero behind its last value.
template <class S>
double dot(const S* a, const S* b, int count) {
  Wide<S> products{};
  for (int i = 0; i < count; i += Wide<S>::lanes) products = products + read<Wide<S>>(a + i) * read<Wide<S>>(b + i);
  return sum_of_lanes(products);
}

// Zeroed memory.
template <class T>
class Block {
 public:
  explicit Block(int64_t count) : at_(static_cast<T*>(calloc(size_t(count ? count : 1), sizeof(T)))) {}
  ~Block() { free(at_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  T* get() const { return at_; }
  T& operator[](int64_t i) const { return at_[i]; }

 private:
  T* const at_;
};

// Of an operation that makes the image small and large again.
template <class S>
struct Resize {
  int64_t factor, height, width, pitch;  // of the small image, whose rows repeat their last value once
  S rows, columns;                       // its size divided by the image's
  const int* low;                        // of each column of the image: where the two it lies between begin
  const S* share;                        // and what the second counts
  const int* begin;                      // of each small column: the first column that lies behind it; and all columns
  const Cubic<S>* cubic;                 // of each small column
  int64_t place;                         // where the small image begins among those of all operations
};

template <class S>
struct Step {
  DegradationKind kind;
  S share, rest;      // of a blend
  S level;            // of posterize
  bool straight_through;
  double deviation;   // of a blur that has one for all
  const S* values;
  Resize<S> resize;
};

inline bool resizes(DegradationKind kind) {
  return kind == DegradationKind::max_pool_resize || kind == DegradationKind::average_pool_resize || kind == DegradationKind::bicubic_resize;
}

template <class S>
class Plan {
 public:
  explicit Plan(const DegradationInput& a)
      : a(a),
        width(int(a.width)),
        count((width + Wide<S>::lanes - 1) / Wide<S>::lanes * Wide<S>::lanes),
        pitch(count + 2 * kMargin),
        steps(a.op_count),
        ints_(a.op_count * (2 * a.width + 1)),
        shares_(a.op_count * a.width + kMargin),
        cubics_(a.op_count * a.width) {
    for (int j = 0; j < a.op_count; ++j) {
      steps[j] = step(a.ops[j]);
      const DegradationKind kind = steps[j].kind;
      if (resizes(kind)) plan(steps[j], j);
      contrast = contrast || kind == DegradationKind::contrast;
      sharpness = sharpness || kind == DegradationKind::sharpness;
      blur = blur || kind == DegradationKind::gaussian_blur;
    }
  }

  int64_t pixels() const { return a.channels * a.height * a.width; }

  const DegradationInput& a;
  const int width, count;  // of a row, and in whole vectors of the widest kind
  const int64_t pitch;     // of a row in a buffer
  Block<Step<S>> steps;
  int64_t small = 0;  // values of all small images
  bool contrast = false, sharpness = false, blur = false;

 private:
  Step<S> step(const DegradationOp& operation) const {
    Step<S> result{};
    result.kind = operation.kind;
    const bool no_inside = a.height <= 2 || a.width <= 2;
    if ((operation.kind == DegradationKind::saturation && a.channels != 3) ||
        (operation.kind == DegradationKind::sharpness && no_inside))
      result.kind = DegradationKind::identity;
    result.share = S(operation.strength);
    result.rest = S(1 - operation.strength);
    if (operation.kind == DegradationKind::posterize) result.level = posterize_step<S>(int(operation.strength));
    result.deviation = operation.strength;
    result.straight_through = operation.straight_through;
    result.values = static_cast<const S*>(operation.values);
    return result;
  }

  void plan(Step<S>& step, int number) {
    Resize<S>& r = step.resize;
    r.factor = int64_t(step.deviation);
    r.height = a.height / r.factor;
    r.width = a.width / r.factor;
    r.pitch = r.width + 1 + kMargin;
    r.rows = S(r.height) / S(a.height);
    r.columns = S(r.width) / S(a.width);
    r.place = small;
    small += a.channels * r.height * r.pitch;
    int* const low = ints_.get() + number * (2 * a.width + 1);
    int* const begin = low + a.width;
    S* const share = shares_.get() + number * a.width;
    Cubic<S>* const cubics = cubics_.get() + number * a.width;
    for (int64_t x = a.width; x-- > 0;) {
      const Between<S> found = between(x, r.columns, r.width);
      low[x] = int(found.low);
      share[x] = found.share;
      begin[found.low] = int(x);
    }
    begin[r.width] = width;
    for (int64_t x = 0; x < r.width; ++x) cubics[x] = cubic(x, S(a.width) / S(r.width));
    r.low = low;
    r.begin = begin;
    r.share = share;
    r.cubic = cubics;
  }

  Block<int> ints_;
  Block<S> shares_;  // with room for a whole last vector
  Block<Cubic<S>> cubics_;
};

// One sample's images, and what is to be added to all of a channel.
template <class S>
struct Image {
  DType dtype;
  const void* data;
  int64_t first;
  S* offset;  // or null
};

template <class S>
void fetch(const Plan<S>& plan, const Image<S>& image, int64_t channel, int64_t y, S* to) {
  read_row(image.dtype, image.data, image.first + (channel * plan.a.height + y) * plan.a.width, to, plan.width);
  if (!image.offset || image.offset[channel] == 0) return;
  const S offset = image.offset[channel];
  for (int i = 0; i < plan.width; i += Pack<S>::lanes) store(to + i, load(to + i) + offset);
  clear(to, plan.width, plan.count);
}

// Whether rows can be computed with where they lie in memory.
template <class S>
bool lies_ready(const Plan<S>& plan, const Image<S>& image) {
  const bool own_type = image.dtype == (sizeof(S) == 8 ? DType::float64 : DType::float32);
  return own_type && plan.width == plan.count && !image.offset;
}

// A row, in memory or in the buffer.
template <class S>
const S* row_of(const Plan<S>& plan, const Image<S>& image, int64_t channel, int64_t y, S* buffer) {
  if (lies_ready(plan, image))
    return static_cast<const S*>(image.data) + image.first + (channel * plan.a.height + y) * plan.a.width;
  fetch(plan, image, channel, y, buffer);
  return buffer;
}

// Rows of buffers, which are zero where nobody wrote.
template <class S>
class Lines {
 public:
  Lines(const Plan<S>& plan, int64_t count) : pitch_(plan.pitch), memory_(count * plan.pitch) {}
  S* operator[](int64_t line) const { return memory_.get() + line * pitch_ + kMargin; }

 private:
  const int64_t pitch_;
  Block<S> memory_;
};

// The last rows of an image that were read.
template <class S>
class Ring {
 public:
  explicit Ring(const Plan<S>& plan) : plan_(plan), lines_(plan, kRing * plan.a.channels) {}

  // Rows are read from `first` on.
  void start(const Image<S>& image, int64_t first) {
    image_ = image;
    ready_ = lies_ready(plan_, image) ? static_cast<const S*>(image.data) + image.first : nullptr;
    next_ = first < 0 ? 0 : first;
  }
  // Up to `last`, as far as there are any.
  void read_to(int64_t last) {
    for (; !ready_ && next_ <= last && next_ < plan_.a.height; ++next_)
      for (int64_t c = 0; c < plan_.a.channels; ++c) fetch(plan_, image_, c, next_, lines_[c * kRing + next_ % kRing]);
  }
  const S* row(int64_t channel, int64_t y) const {
    return ready_ ? ready_ + (channel * plan_.a.height + y) * plan_.a.width : lines_[channel * kRing + y % kRing];
  }

 private:
  const Plan<S>& plan_;
  const Lines<S> lines_;
  Image<S> image_{};
  const S* ready_ = nullptr;  // the image, where its rows lie ready
  int64_t next_ = 0;
};

// Runs the stages of every sample with workers, in this order or from the last to the first. Each stage is two passes
// over the rows, look() and work(), as the second needs all of what the first found; settle() comes when a sample's
// stage is done, and finish() when all stages are. start(sample, stage, room) tells a worker what it works at. Samples
// are worked at side by side where there are enough for all threads, and rooms are the threads' own; else the rows of
// all samples are `shared` out, and each sample has a room.
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
  // Calls run(worker, first row, end) for the rows of all samples.
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

inline int useful_threads(const DegradationInput& a, int threads) {
  const int64_t useful = a.batch * a.channels * a.height * a.width / kPixelsWorthAThread + 1;
  return useful < threads ? int(useful) : threads;
}

// Whether samples have to share the threads.
inline bool shares_threads(const DegradationInput& a, int threads) { return a.batch % threads && a.batch < 4 * threads; }

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
