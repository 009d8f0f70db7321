// A stage takes two passes over the rows of a sample. The first computes the mean gray value, the small images and
// their gradients. The second keeps the last rows of the image and of the gradient of the result, and adds the
// contributions of all ops to one row of the gradient of the image. The contribution through the mean is the same for
// all pixels of a channel: it is added where that gradient is read.
#include "pixel_adjoints.h"
#include "../common/kernels.h"

namespace deal {
namespace DEAL_ISA {
namespace {

template <class S>
struct Backward {
  Backward(const DegradationBackward& a, int64_t slots)
      : a(a),
        plan(a),
        grads(slots * 2 * plan.pixels(), Fill::zeros),
        offsets(slots * 2 * a.channels, Fill::zeros),
        sums(slots * a.height * a.channels, Fill::zeros),
        through_mean(slots * a.height, Fill::zeros),
        dots(slots * a.height * a.op_count, Fill::zeros),
        small(slots * plan.small, Fill::zeros),
        small_grads(slots * plan.small, Fill::zeros),
        rows(slots * plan.small, Fill::zeros),
        columns(slots * plan.small, Fill::zeros) {}

  const DegradationBackward& a;
  const Plan<S> plan;
  Buffer<S> grads;       // gradients of the stages' inputs, alternating between two places
  Buffer<S> offsets;     // what must be added to all pixels of a channel of these
  Buffer<double> sums, through_mean;
  Buffer<double> dots;   // by row and op: the dot product of the gradient and the result of the op
  Buffer<S> small, small_grads, rows;  // of small images: values, gradients, and rows of the maxima
  Buffer<int> columns;  // of the maxima
};

template <class S>
class BackwardWorker {
 public:
  explicit BackwardWorker(const Backward<S>& call)
      : call_(call),
        plan_(call.plan),
        a_(call.a),
        images_(plan_),
        grads_(plan_),
        resize_(plan_),
        scratch_(plan_),
        softened_(plan_, kHeld * a_.channels),
        results_(plan_, kHeld * a_.channels),
        held_(a_.op_count, Fill::zeros) {}

  void start(int64_t sample, int64_t stage, int64_t slot) {
    sample_ = sample;
    stage_ = stage;
    const int64_t pixels = plan_.pixels();
    image_ = {a_.dtype, stage == 0 ? a_.x : call_.a.inputs, sample * pixels, nullptr};
    if (stage > 0) image_.first += (stage - 1) * a_.batch * pixels;
    const int64_t from = 2 * slot + (stage + 1) % 2, to = 2 * slot + stage % 2;
    const DType dtype = sizeof(S) == 8 ? DType::float64 : DType::float32;
    if (stage == a_.stages - 1) grad_ = {a_.dtype, call_.a.grad, sample * pixels, nullptr};
    else grad_ = {dtype, call_.grads.get(), from * pixels, call_.offsets.get() + from * a_.channels};
    result_ = {dtype, call_.grads.get(), to * pixels, call_.offsets.get() + to * a_.channels};
    result_data_ = call_.grads.get();
    if (stage == 0 && !(call_.a.grad_x && plan_.contrast)) {
      result_ = {a_.dtype, call_.a.grad_x, sample * pixels, nullptr};
      result_data_ = call_.a.grad_x;
    }
    sums_ = call_.sums.get() + slot * a_.height * a_.channels;
    through_mean_ = call_.through_mean.get() + slot * a_.height;
    dots_ = call_.dots.get() + slot * a_.height * a_.op_count;
    small_ = slot * plan_.small;
    const S* const weights = static_cast<const S*>(a_.weights) + (sample * a_.stages + stage) * a_.op_count;
    for (int j = 0; j < a_.op_count; ++j) hold(held_[j], plan_.steps[j], weights[j], plan_, sample, stage);
  }

  void look(int64_t begin, int64_t end) {
    clear(dots_, int(begin * a_.op_count), int(end * a_.op_count));
    clear(through_mean_, int(begin), int(end));
    if (plan_.contrast) sum_rows(plan_, image_, resize_, begin, end, sums_);
    for (int j = 0; j < a_.op_count; ++j) {
      const Step<S>& step = plan_.steps[j];
      if (!resizes(step.kind)) continue;
      for (int64_t at = (begin + step.factor - 1) / step.factor; at < step.height && at * step.factor < end; ++at)
        for (int64_t c = 0; c < a_.channels; ++c) {
          const int64_t row = small_row(step, c, at);
          S *const value = call_.small.get() + row, *const grad = call_.small_grads.get() + row;
          shrink(plan_, resize_, step, image_, c, at, value, places_at(row));
          narrow_gradient(plan_, resize_, step, grad_, c, at, grad);
          dots_[at * step.factor * a_.op_count + j] += dot(value, grad, int(step.width));
        }
    }
  }

  void work(int64_t begin, int64_t end) {
    mean_ = plan_.contrast ? mean_of_gray<S>(a_, sums_) : S(0);
    const int soft = plan_.sharpness ? 1 : 0, reach = plan_.blur_reach ? plan_.blur_reach : soft;
    images_.start(image_, begin - 2 * soft);
    grads_.start(grad_, begin - reach);
    for (int64_t y = begin - soft; y < begin + soft; ++y) prepare(y, begin, end, reach);
    for (int64_t y = begin; y < end; ++y) {
      prepare(y + soft, begin, end, reach);
      for (int64_t c = 0; c < a_.channels; ++c)
        for (int j = 0; j < a_.op_count; ++j) dots_[y * a_.op_count + j] += add(j, c, y);
      for (int64_t c = 0; c < a_.channels; ++c) {
        if (!result_data_) continue;
        if (plan_.sharpness) add_softened(c, y);
        const int64_t pixel = result_.first + (c * a_.height + y) * a_.width;
        write_row(result_.dtype, result(c, y), result_data_, pixel, plan_.width);
      }
    }
  }

  // After all rows: the gradients of the weights, and the contribution through the mean.
  void settle() {
    S* const weights = static_cast<S*>(call_.a.grad_weights);
    for (int j = 0; weights && j < a_.op_count; ++j) {
      double total = 0;
      for (int64_t y = 0; y < a_.height; ++y) total += dots_[y * a_.op_count + j];
      weights[(sample_ * a_.stages + stage_) * a_.op_count + j] = S(total);
    }
    if (!result_.offset) return;
    double total = 0;
    for (int64_t y = 0; y < a_.height; ++y) total += through_mean_[y];
    total /= double(a_.height) * double(a_.width);
    for (int64_t c = 0; c < a_.channels; ++c) result_.offset[c] = S(total * double(gray_share<S>(c, a_.channels)));
  }

  // Writes rows of the gradient of x, if an offset must still be added to them.
  void finish(int64_t begin, int64_t end) {
    if (!result_.offset) return;
    for (int64_t c = 0; c < a_.channels; ++c)
      for (int64_t y = begin; y < end; ++y) {
        const int64_t pixel = sample_ * plan_.pixels() + (c * a_.height + y) * a_.width;
        fetch(plan_, result_, c, y, resize_.line);
        write_row(a_.dtype, resize_.line, call_.a.grad_x, pixel, plan_.width);
      }
  }

 private:
  using V = Wide<S>;               // for sums
  static constexpr int kHeld = 4;  // rows held; sharpness needs three

  template <class Body>
  DEAL_INLINE void each_value(const Body& body) const {
    for (int i = 0; i < plan_.count; i += V::lanes) body(i);
  }

  int64_t small_row(const Step<S>& step, int64_t c, int64_t at) const {
    return small_ + step.tables.first + (c * step.height + at) * step.tables.pitch;
  }
  MaxPositions<S> places_at(int64_t row) const { return {call_.rows.get() + row, call_.columns.get() + row}; }
  S* softened(int64_t c, int64_t y) const { return softened_[c * kHeld + (y + kHeld) % kHeld]; }
  S* result(int64_t c, int64_t y) const { return results_[c * kHeld + (y + kHeld) % kHeld]; }

  // Starts row y of the result with the contributions of sharpness.
  void prepare(int64_t y, int64_t begin, int64_t end, int reach) {
    images_.read_to(y + (plan_.sharpness ? 1 : 0));
    grads_.read_to(y + (plan_.sharpness && reach ? reach - 1 : reach));
    for (int64_t c = 0; c < a_.channels; ++c) {
      clear(result(c, y), 0, plan_.count);
      if (!plan_.sharpness) continue;
      S *const soft = softened(c, y), *const to = result(c, y);
      clear(soft, 0, plan_.count);
      if (y < 0 || y >= a_.height) continue;
      const auto at = [&](int k) { return images_.row(c, y + k); };
      smooth_row(plan_, y, at, scratch_.row, scratch_.flat);
      for (int j = 0; j < a_.op_count; ++j) {
        if (plan_.steps[j].kind != DegradationKind::sharpness) continue;
        const double dot = add_blend(plan_.steps[j], held_[j].weight, c, y, scratch_.flat, soft, to);
        if (y >= begin && y < end) dots_[y * a_.op_count + j] += dot;
      }
      unsoften_border(y, soft, to);
    }
  }

  // Adds the gradients of a blend with respect to the flat image and to the image, and returns the dot product of the
  // gradient and the blend.
  double add_blend(const Step<S>& step, S weight, int64_t c, int64_t y, const S* flat, S* to_flat, S* to) const {
    const S *const x = images_.row(c, y), *const g = grads_.row(c, y);
    const S share = step.share, rest = step.rest, own = share * weight, other = rest * weight;
    V dot{};
    each_value([&](int i) DEAL_FLAT {
      const V grad = read<V>(g + i), blend = blended(read<V>(x + i), read<V>(flat + i), share, rest);
      const V pass = passed(blend, grad);
      dot = dot + grad * clamped(blend);
      store(to + i, read<V>(to + i) + pass * own);
      store(to_flat + i, read<V>(to_flat + i) + pass * other);
    });
    return sum_of_lanes(dot);
  }

  // On the border, the smooth image is the image itself.
  void unsoften_border(int64_t y, S* soft, S* to) const {
    if (y == 0 || y == a_.height - 1) {
      each_vector<S>(plan_.count, [=](int i) DEAL_FLAT { store(to + i, load(to + i) + load(soft + i)); });
      clear(soft, 0, plan_.count);
      return;
    }
    for (int x = 0; x < plan_.width; x += plan_.width - 1) {
      to[x] += soft[x];
      soft[x] = 0;
    }
  }

  void add_softened(int64_t c, int64_t y) const {
    S *const to = result(c, y), *const column = scratch_.row;
    const S *const above = softened(c, y - 1), *const own = softened(c, y), *const below = softened(c, y + 1);
    add_three(above, own, below, column, plan_.count);
    column[-1] = column[plan_.count] = 0;
    each_vector<S>(plan_.count, [=](int i) DEAL_FLAT {
      const Pack<S> nine = (load(column + i - 1) + load(column + i + 1)) + load(column + i);
      store(to + i, load(to + i) + smoothed(nine, load(own + i)));
    });
  }

  // Adds the contribution of an op to row y of the image's gradient, and returns the dot product of the result's
  // gradient and the result of the op.
  double add(int j, int64_t c, int64_t y) const {
    const Step<S>& step = plan_.steps[j];
    const OpState<S>& held = held_[j];
    const S weight = held.weight;
    const AdjointRow<S> row{images_.row(c, y), grads_.row(c, y), weight, result(c, y), plan_.count};
    switch (step.kind) {
      case DegradationKind::identity: return row.add_through([](const V& v, int) DEAL_FLAT { return v; });
      case DegradationKind::contrast: return add_contrast(step, weight, c, y);
      case DegradationKind::saturation: return add_saturation(step, weight, c, y);
      case DegradationKind::sharpness: return 0;  // see prepare()
      case DegradationKind::gaussian_blur: return add_blur<kBlurReach>(held, c, y);
      case DegradationKind::wide_blur: return add_blur<kWideReach>(held, c, y);
      case DegradationKind::max_pool_resize:
      case DegradationKind::average_pool_resize:
      case DegradationKind::bicubic_resize: add_resize(step, weight, c, y); return 0;
      case DegradationKind::posterize: return row.add_posterized(step.level, step.straight_through);
      case DegradationKind::quantise: return row.add_quantised(step.level);
      case DegradationKind::clip: return row.add_clamped([](const V& v, int) DEAL_FLAT { return clamped(v); });
      case DegradationKind::row_stripe: {
        const S offset = held.values[y];
        return row.add_through([=](const V& v, int) DEAL_FLAT { return v + offset; });
      }
      case DegradationKind::gain: return row.add_gain(read_values(step.kind, held, c, y));
      case DegradationKind::row_gain: return row.add_row_gain(held.values[y]);
      case DegradationKind::tone: return row.add_tone(held.values[0], held.values[1]);
      case DegradationKind::dead: return row.add_replaced(read_values(step.kind, held, c, y));
      case DegradationKind::stripe:
      case DegradationKind::pattern:
      case DegradationKind::noise: {
        const S* const values = read_values(step.kind, held, c, y);
        return row.add_through([=](const V& v, int i) DEAL_FLAT { return v + read<V>(values + i); });
      }
    }
    return 0;
  }

  const S* read_values(DegradationKind kind, const OpState<S>& held, int64_t c, int64_t y) const {
    read_row(value_row(plan_, kind, held, c, y), scratch_.values, plan_.width);
    return scratch_.values;
  }

  double add_contrast(const Step<S>& step, S weight, int64_t c, int64_t y) const {
    const S *const x = images_.row(c, y), *const g = grads_.row(c, y);
    S* const to = result(c, y);
    const S share = step.share, rest = step.rest, own = share * weight;
    const V mean = V{} + mean_;
    V dot{}, passes{};
    each_value([&](int i) DEAL_FLAT {
      const V grad = read<V>(g + i), blend = blended(read<V>(x + i), mean, share, rest), pass = passed(blend, grad);
      dot = dot + grad * clamped(blend);
      passes = passes + pass;
      store(to + i, read<V>(to + i) + pass * own);
    });
    through_mean_[y] += double(rest) * double(weight) * sum_of_lanes(passes);
    return sum_of_lanes(dot);
  }

  double add_saturation(const Step<S>& step, S weight, int64_t c, int64_t y) const {
    const S *const red = images_.row(0, y), *const green = images_.row(1, y), *const blue = images_.row(2, y);
    S *const flat = scratch_.flat, *const passes = scratch_.row;
    each_vector<S>(plan_.count, [=](int i) DEAL_FLAT {
      store(flat + i, gray(load(red + i), load(green + i), load(blue + i)));
    });
    clear(passes, 0, plan_.count);
    const double dot = add_blend(step, weight, c, y, flat, passes, result(c, y));
    for (int64_t k = 0; k < a_.channels; ++k) {
      S* const to = result(k, y);
      const S share = gray_share<S>(k, a_.channels);
      each_vector<S>(plan_.count, [=](int i) DEAL_FLAT { store(to + i, load(to + i) + load(passes + i) * share); });
    }
    return dot;
  }

  // The blur is linear: the dot product of the gradient and the blurred image equals that of the adjoint and the image.
  template <int reach>
  double add_blur(const OpState<S>& held, int64_t c, int64_t y) const {
    const Taps<S> taps = held.taps;
    S *const row = scratch_.row, *const to = result(c, y);
    const S *const x = images_.row(c, y), weight = held.weight;
    const auto at = [&](int64_t k) { return grads_.row(c, k); };
    if (y > reach && y < a_.height - 1 - reach) blur_down<reach>(plan_, taps, y, at, row);
    else blur_down_border<reach>(taps, y, at, row);
    clear(row, -reach, 0);
    clear(row, plan_.width, plan_.count + reach);
    V total{};
    each_value([&](int i) DEAL_FLAT {
      const V part = blurred_along<V, reach>(row + i, taps);
      total = total + part * read<V>(x + i);
      store(to + i, read<V>(to + i) + part * weight);
    });
    double dot = sum_of_lanes(total);
    for (int k = 1; k <= reach; ++k)
      for (int from = 0; from + k <= reach; ++from) {
        const int last = plan_.width - 1;
        const S low = row[from] * taps.at[from + k], high = row[last - from] * taps.at[from + k];
        to[k] += low * weight;
        to[last - k] += high * weight;
        dot += double(low) * double(x[k]) + double(high) * double(x[last - k]);
      }
    return dot;
  }

  // The adjoint of the vertical blur, in a row that contributes to others by reflection.
  template <int reach, class At>
  void blur_down_border(const Taps<S>& taps, int64_t y, const At& at, S* to) const {
    clear(to, 0, plan_.count);
    for (int64_t from = y - reach; from <= y + reach; ++from) {
      if (from < 0 || from >= a_.height) continue;
      const S tap = reflected_tap(taps, from, y, a_.height);
      const S* const g = at(from);
      each_vector<S>(plan_.count, [=](int i) DEAL_FLAT { store(to + i, load(to + i) + load(g + i) * tap); });
    }
  }

  void add_resize(const Step<S>& step, S weight, int64_t c, int64_t y) const {
    S* const to = result(c, y);
    const int64_t at = y / step.factor;
    const S* const grads = call_.small_grads.get() + small_row(step, c, 0);
    if (step.kind == DegradationKind::bicubic_resize)
      return add_cubic_gradient(plan_, step, grads, y, weight, scratch_.row, scratch_.flat, to);
    if (at >= step.height) return;
    const S* const grad = grads + at * step.tables.pitch;
    if (step.kind == DegradationKind::average_pool_resize) add_average_gradient(step, grad, weight, to);
    else add_max_gradient(step, grad, places_at(small_row(step, c, at)), y, weight, scratch_.row, to);
  }

  const Backward<S>& call_;
  const Plan<S>& plan_;
  const DegradationInput& a_;
  RowRing<S> images_, grads_;
  const ResizeScratch<S> resize_;
  const OpScratch<S> scratch_;
  const Lines<S> softened_, results_;
  Buffer<OpState<S>> held_;
  int64_t sample_ = 0, stage_ = 0, small_ = 0;
  Image<S> image_{}, grad_{}, result_{};
  void* result_data_ = nullptr;
  double *sums_ = nullptr, *through_mean_ = nullptr, *dots_ = nullptr;
  S mean_ = 0;
};

template <class S>
void backward(const DegradationBackward& a, int threads) {
  const int useful = useful_threads(a.batch * a.channels * a.height * a.width, kPixelsWorthAThread, threads);
  const bool shared = shares_threads(a, useful);
  Backward<S> call(a, shared ? a.batch : useful);
  each_stage<BackwardWorker<S>>(a, call, useful, shared, true);
}

}  // namespace

void degradation_backward(const DegradationBackward& a, int threads) {
  a.dtype == DType::float64 ? backward<double>(a, threads) : backward<float>(a, threads);
}

}  // namespace DEAL_ISA
}  // namespace deal
