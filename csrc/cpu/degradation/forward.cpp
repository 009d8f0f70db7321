// A stage takes two passes over the rows of a sample. The first computes the mean gray value and the small images. The
// second keeps the last rows of the image and adds the results of all ops in one row.
#include "row_ops.h"
#include "../common/kernels.h"

namespace deal {
namespace DEAL_ISA {
namespace {

template <class S>
struct Forward {
  Forward(const DegradationForward& a, int64_t slots)
      : a(a),
        plan(a),
        pixels(plan.pixels()),
        bytes(pixels * (a.dtype == DType::float64 ? 8 : a.dtype == DType::float32 ? 4 : 2)),
        between_stages(a.inputs || a.stages == 1 ? 0 : slots * bytes, Fill::zeros),
        sums(slots * a.height * a.channels, Fill::zeros),
        small(slots * plan.small, Fill::zeros) {}

  const DegradationForward& a;
  const Plan<S> plan;
  const int64_t pixels, bytes;  // of a sample
  Buffer<char> between_stages;   // every second result, if they are not kept; the others are in y
  Buffer<double> sums;
  Buffer<S> small;
};

template <class S>
class ForwardWorker {
 public:
  explicit ForwardWorker(const Forward<S>& call)
      : call_(call),
        plan_(call.plan),
        a_(call.a),
        ring_(plan_),
        resize_(plan_),
        scratch_(plan_),
        wide_(plan_, 2 * a_.channels * a_.op_count),
        results_(plan_, a_.channels),
        held_(a_.op_count, Fill::zeros) {}

  void start(int64_t sample, int64_t stage, int64_t slot) {
    sample_ = sample;
    stage_ = stage;
    const int64_t first = sample * call_.pixels;
    image_ = {a_.dtype, stage == 0 ? a_.x : result_of(stage - 1, slot), 0, nullptr};
    image_.first = stage == 0 || image_.data == call_.a.y ? first : kept_at(stage - 1);
    result_ = result_of(stage, slot);
    result_at_ = result_ == call_.a.y ? first : kept_at(stage);
    sums_ = call_.sums.get() + slot * a_.height * a_.channels;
    small_ = call_.small.get() + slot * plan_.small;
    const S* const weights = static_cast<const S*>(a_.weights) + (sample * a_.stages + stage) * a_.op_count;
    for (int j = 0; j < a_.op_count; ++j) hold(held_[j], plan_.steps[j], weights[j], plan_, sample, stage);
  }

  void look(int64_t begin, int64_t end) {
    if (plan_.contrast) sum_rows(plan_, image_, resize_, begin, end, sums_);
    for (int j = 0; j < a_.op_count; ++j) {
      const Step<S>& step = plan_.steps[j];
      if (!resizes(step.kind)) continue;
      for (int64_t at = (begin + step.factor - 1) / step.factor; at < step.height && at * step.factor < end; ++at)
        for (int64_t c = 0; c < a_.channels; ++c)
          shrink(plan_, resize_, step, image_, c, at,
                 small_ + step.tables.first + (c * step.height + at) * step.tables.pitch, MaxPositions<S>{});
    }
  }

  void work(int64_t begin, int64_t end) {
    const int reach = plan_.blur_reach ? plan_.blur_reach : plan_.sharpness ? 1 : 0;
    mean_ = plan_.contrast ? mean_of_gray<S>(a_, sums_) : S(0);
    ring_.start(image_, begin - reach);
    for (int64_t y = begin; y < end; ++y) {
      ring_.read_to(y + reach);
      for (int64_t c = 0; c < a_.channels; ++c) {
        clear(results_[c], 0, plan_.count);
        for (int j = 0; j < a_.op_count; ++j) add(j, c, y);
        write_row(a_.dtype, results_[c], result_, result_at_ + (c * a_.height + y) * a_.width, plan_.width);
      }
    }
  }

  void settle() {}
  void finish(int64_t, int64_t) {}

 private:
  // Results of the stages are kept for the backward pass, or alternate between y and a buffer.
  void* result_of(int64_t stage, int64_t slot) const {
    if (stage == a_.stages - 1) return call_.a.y;
    if (call_.a.inputs) return call_.a.inputs;
    return (a_.stages - 1 - stage) % 2 ? call_.between_stages.get() + slot * call_.bytes : call_.a.y;
  }
  int64_t kept_at(int64_t stage) const { return call_.a.inputs ? (stage * a_.batch + sample_) * call_.pixels : 0; }

  template <class Body>
  DEAL_INLINE void add_each(S* to, S weight, const Body& body) const {
    each_vector<S>(plan_.count, [&](int i) DEAL_FLAT { store(to + i, load(to + i) + body(i) * weight); });
  }

  void add_blended(S* to, const Step<S>& step, S weight, const S* x, const S* flat) const {
    const S share = step.share, rest = step.rest;
    add_each(to, weight, [=](int i) DEAL_FLAT { return clamped(blended(load(x + i), load(flat + i), share, rest)); });
  }

  // Adds the result of the op in row y.
  void add(int j, int64_t c, int64_t y) {
    const Step<S>& step = plan_.steps[j];
    OpState<S>& held = held_[j];
    const S *const x = ring_.row(c, y), weight = held.weight;
    S* const to = results_[c];
    const auto at = [&](int k) { return ring_.row(c, y + k); };
    switch (step.kind) {
      case DegradationKind::identity: return add_each(to, weight, [=](int i) DEAL_FLAT { return load(x + i); });
      case DegradationKind::contrast: {
        const Pack<S> mean = Pack<S>{} + mean_;
        const S share = step.share, rest = step.rest;
        return add_each(to, weight, [=](int i) DEAL_FLAT { return clamped(blended(load(x + i), mean, share, rest)); });
      }
      case DegradationKind::saturation: {
        const S *const red = ring_.row(0, y), *const green = ring_.row(1, y), *const blue = ring_.row(2, y);
        const S share = step.share, rest = step.rest;
        return add_each(to, weight, [=](int i) DEAL_FLAT {
          return clamped(blended(load(x + i), gray(load(red + i), load(green + i), load(blue + i)), share, rest));
        });
      }
      case DegradationKind::sharpness:
        smooth_row(plan_, y, at, scratch_.row, scratch_.flat);
        return add_blended(to, step, weight, x, scratch_.flat);
      case DegradationKind::gaussian_blur: return add_blurred<kBlurReach>(held, c, y);
      case DegradationKind::wide_blur: return add_blurred<kWideReach>(held, c, y);
      case DegradationKind::max_pool_resize:
      case DegradationKind::average_pool_resize:
      case DegradationKind::bicubic_resize: {
        const int64_t line = 2 * a_.channels * j;
        const WidenedRows<S> two = widened(plan_, step, small_ + step.tables.first, held, wide_, line, c, y);
        const S share = two.share, rest = S(1) - share;
        const auto mixed = [=](int i) DEAL_FLAT { return load(two.low + i) * rest + load(two.high + i) * share; };
        return add_each(to, weight, mixed);
      }
      case DegradationKind::posterize: {
        const S level = step.level;
        return add_each(to, weight, [=](int i) DEAL_FLAT { return posterized(load(x + i), level); });
      }
      case DegradationKind::row_stripe: {
        const S offset = held.values[y];
        return add_each(to, weight, [=](int i) DEAL_FLAT { return load(x + i) + offset; });
      }
      case DegradationKind::row_gain: {
        const S gain = held.values[y];
        return add_each(to, weight, [=](int i) DEAL_FLAT { return load(x + i) * gain; });
      }
      case DegradationKind::tone: {
        const S gain = held.values[0], offset = held.values[1];
        return add_each(to, weight, [=](int i) DEAL_FLAT { return load(x + i) * gain + offset; });
      }
      case DegradationKind::quantise: {
        const S levels = step.level;
        return add_each(to, weight, [=](int i) DEAL_FLAT { return quantised(load(x + i), levels); });
      }
      case DegradationKind::clip: return add_each(to, weight, [=](int i) DEAL_FLAT { return clamped(load(x + i)); });
      case DegradationKind::gain: {
        const S* const values = read_values(step.kind, held, c, y);
        return add_each(to, weight, [=](int i) DEAL_FLAT { return load(x + i) * load(values + i); });
      }
      case DegradationKind::dead: {
        const S* const values = read_values(step.kind, held, c, y);
        return add_each(to, weight, [=](int i) DEAL_FLAT { return replaced(load(x + i), load(values + i)); });
      }
      case DegradationKind::stripe:
      case DegradationKind::pattern:
      case DegradationKind::noise: {
        const S* const values = read_values(step.kind, held, c, y);
        return add_each(to, weight, [=](int i) DEAL_FLAT { return load(x + i) + load(values + i); });
      }
    }
  }

  template <int reach>
  void add_blurred(const OpState<S>& held, int64_t c, int64_t y) {
    const Taps<S> taps = held.taps;
    const S* const row = scratch_.row;
    blur_down<reach>(plan_, taps, y, [&](int64_t k) { return ring_.row(c, k); }, scratch_.row);
    reflect_ends<reach>(scratch_.row, plan_.width);
    add_each(results_[c], held.weight, [&](int i) DEAL_FLAT { return blurred_along<Pack<S>, reach>(row + i, taps); });
  }

  const S* read_values(DegradationKind kind, const OpState<S>& held, int64_t c, int64_t y) const {
    read_row(value_row(plan_, kind, held, c, y), scratch_.values, plan_.width);
    return scratch_.values;
  }

  const Forward<S>& call_;
  const Plan<S>& plan_;
  const DegradationInput& a_;
  RowRing<S> ring_;
  const ResizeScratch<S> resize_;
  const OpScratch<S> scratch_;
  const Lines<S> wide_, results_;
  Buffer<OpState<S>> held_;
  int64_t sample_ = 0, stage_ = 0, result_at_ = 0;
  Image<S> image_{};
  void* result_ = nullptr;
  double* sums_ = nullptr;
  S* small_ = nullptr;
  S mean_ = 0;
};

template <class S>
void forward(const DegradationForward& a, int threads) {
  const int useful = useful_threads(a.batch * a.channels * a.height * a.width, kPixelsWorthAThread, threads);
  const bool shared = shares_threads(a, useful);
  Forward<S> call(a, shared ? a.batch : useful);
  each_stage<ForwardWorker<S>>(a, call, useful, shared, false);
}

}  // namespace

void degradation_forward(const DegradationForward& a, int threads) {
  a.dtype == DType::float64 ? forward<double>(a, threads) : forward<float>(a, threads);
}

}  // namespace DEAL_ISA
}  // namespace deal
