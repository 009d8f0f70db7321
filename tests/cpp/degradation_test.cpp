// The degradation mixture against loops over single pixels in double precision, and its gradients against how its
// results change, in buffers of exactly the size it needs, so that a sanitizer sees every stray access.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/cpu/common/kernels.h"
#include "../../csrc/math/degradation.h"

using namespace deal;

namespace {

int failures = 0;

struct Shape {
  int64_t batch, channels, height, width, stages;
  int64_t image() const { return channels * height * width; }
};

void expect_near(const char* what, const Shape& s, double got, double expected, double tolerance) {
  if (std::fabs(got - expected) <= tolerance) return;
  std::printf("%s: [%ld, %ld, %ld, %ld]: %g, expected %g\n", what, long(s.batch), long(s.channels), long(s.height),
              long(s.width), got, expected);
  ++failures;
}

// One image, [channels, height, width].
struct Image {
  Shape s;
  std::vector<double> at;
  double& operator()(int64_t c, int64_t y, int64_t x) { return at[size_t((c * s.height + y) * s.width + x)]; }
  double operator()(int64_t c, int64_t y, int64_t x) const { return at[size_t((c * s.height + y) * s.width + x)]; }
  double edge(int64_t c, int64_t y, int64_t x) const {
    return (*this)(c, std::clamp<int64_t>(y, 0, s.height - 1), std::clamp<int64_t>(x, 0, s.width - 1));
  }
};

template <class Value>
Image filled(const Shape& s, const Value& value) {
  Image result{s, std::vector<double>(size_t(s.image()))};
  for (int64_t c = 0; c < s.channels; ++c)
    for (int64_t y = 0; y < s.height; ++y)
      for (int64_t x = 0; x < s.width; ++x) result(c, y, x) = value(c, y, x);
  return result;
}

double gray_at(const Image& x, int64_t i, int64_t k) {
  return x.s.channels == 1 ? x(0, i, k) : gray(x(0, i, k), x(1, i, k), x(2, i, k));
}

Image resized(const Image& x, const DegradationOp& o) {
  const int64_t factor = int64_t(o.strength);
  Shape small = x.s;
  small.height /= factor;
  small.width /= factor;
  const Image shrunk = filled(small, [&](int64_t c, int64_t i, int64_t k) {
    double total = 0, largest = -INFINITY;
    for (int64_t n = 0; n < factor * factor; ++n) {
      const double value = x(c, i * factor + n / factor, k * factor + n % factor);
      total += value;
      largest = std::max(largest, value);
    }
    if (o.kind == DegradationKind::max_pool_resize) return largest;
    if (o.kind == DegradationKind::average_pool_resize) return total / double(factor * factor);
    const auto rows = cubic(i, double(x.s.height) / double(small.height));
    const auto columns = cubic(k, double(x.s.width) / double(small.width));
    total = 0;
    for (int n = 0; n < 16; ++n)
      total += rows.weight[n / 4] * columns.weight[n % 4] * x.edge(c, rows.first + n / 4, columns.first + n % 4);
    return total;
  });
  return filled(x.s, [&](int64_t c, int64_t i, int64_t k) {
    const auto rows = between(i, double(small.height) / double(x.s.height), small.height);
    const auto columns = between(k, double(small.width) / double(x.s.width), small.width);
    const auto along = [&](int64_t row) {
      return shrunk(c, row, columns.low) * (1 - columns.share) + shrunk(c, row, columns.high) * columns.share;
    };
    return along(rows.low) * (1 - rows.share) + along(rows.high) * rows.share;
  });
}

// What an operation makes of an image; `place` counts samples and stages.
Image applied(const Image& x, const DegradationOp& o, int64_t place) {
  const Shape& s = x.s;
  const double* values = static_cast<const double*>(o.values);
  const bool inside = s.height > 2 && s.width > 2;
  double mean = 0;
  for (int64_t i = 0; i < s.height; ++i)
    for (int64_t k = 0; k < s.width; ++k) mean += gray_at(x, i, k) / double(s.height * s.width);
  if (o.kind == DegradationKind::max_pool_resize || o.kind == DegradationKind::average_pool_resize ||
      o.kind == DegradationKind::bicubic_resize)
    return resized(x, o);
  return filled(s, [&](int64_t c, int64_t i, int64_t k) {
    const double own = x(c, i, k);
    const auto blend = [&](double flat) { return clamped(o.strength * own + (1 - o.strength) * flat); };
    double total = 0;
    switch (o.kind) {
      case DegradationKind::contrast: return blend(mean);
      case DegradationKind::saturation: return s.channels == 1 ? own : blend(gray_at(x, i, k));
      case DegradationKind::sharpness:
        if (!inside) return own;
        if (i == 0 || k == 0 || i == s.height - 1 || k == s.width - 1) return blend(own);
        for (int n = 0; n < 9; ++n) total += x(c, i + n / 3 - 1, k + n % 3 - 1) / 13;
        return blend(total + own * 4 / 13);
      case DegradationKind::gaussian_blur:
      case DegradationKind::wide_blur: {
        const int reach = o.kind == DegradationKind::wide_blur ? kWideReach : kBlurReach;
        Taps<double> taps;
        gaussian(values[place], reach, taps);
        for (int a = -reach; a <= reach; ++a)
          for (int b = -reach; b <= reach; ++b)
            total += taps.at[std::abs(a)] * taps.at[std::abs(b)] *
                     x(c, reflected(i + a, s.height), reflected(k + b, s.width));
        return total;
      }
      case DegradationKind::posterize: {
        const int kept = int(o.strength);
        return double((int(clamped(own) * 255) >> (8 - kept)) << (8 - kept)) / 255;
      }
      case DegradationKind::stripe: return own + values[place * s.width + k];
      case DegradationKind::row_stripe: return own + values[place * s.height + i];
      case DegradationKind::gain: return own * values[place * s.width + k];
      case DegradationKind::noise: return own + values[((place * s.channels + c) * s.height + i) * s.width + k];
      case DegradationKind::row_gain: return own * values[place * s.height + i];
      case DegradationKind::tone: return own * values[2 * place] + values[2 * place + 1];
      case DegradationKind::dead: {
        const double value = values[((place * s.channels + c) * s.height + i) * s.width + k];
        return std::isnan(value) ? own : value;
      }
      case DegradationKind::pattern: return own + values[(place * s.height + i) * s.width + k];
      case DegradationKind::clip: return clamped(own);
      default: return own;
    }
  });
}

template <class T>
struct Exact {
  explicit Exact(int64_t count) : count(count), data(new T[size_t(count)]) {}
  explicit Exact(const std::vector<double>& values) : Exact(int64_t(values.size())) {
    std::copy(values.begin(), values.end(), get());
  }
  int64_t count;
  std::unique_ptr<T[]> data;
  T* get() const { return data.get(); }
};

std::vector<double> drawn(std::mt19937& random, int64_t count, double least, double most) {
  std::uniform_real_distribution<double> uniform(least, most);
  std::vector<double> result(static_cast<size_t>(count));
  for (double& value : result) value = uniform(random);
  return result;
}

// A call: its operations, and the values of these in double precision.
struct Case {
  Shape s;
  std::vector<DegradationOp> operations;
  std::vector<std::vector<double>> values;
  std::vector<double> x, weights, grad;
};

struct Results {
  std::vector<double> y, grad_x, grad_weights;
};

template <class T>
Results run(const Case& a, DType dtype, int threads) {
  std::vector<Exact<T>> values;
  std::vector<DegradationOp> operations = a.operations;
  for (size_t j = 0; j < operations.size(); ++j) {
    values.emplace_back(a.values[j]);
    operations[j].values = values[j].get();
  }
  const Shape& s = a.s;
  const Exact<T> x(a.x), weights(a.weights), grad(a.grad), y(x.count), inputs((s.stages - 1) * x.count), again(x.count);
  const Exact<T> grad_x(x.count), grad_weights(weights.count), alone(weights.count);
  const DegradationInput mixture = {dtype, s.batch, s.channels, s.height, s.width, s.stages, int(operations.size()),
                           operations.data(), x.get(), weights.get()};
  kernels().degradation_forward({mixture, again.get(), nullptr}, threads);
  kernels().degradation_forward({mixture, y.get(), inputs.get()}, threads);
  kernels().degradation_backward({mixture, inputs.get(), grad.get(), nullptr, alone.get()}, threads);
  kernels().degradation_backward({mixture, inputs.get(), grad.get(), grad_x.get(), nullptr}, threads);
  kernels().degradation_backward({mixture, inputs.get(), grad.get(), grad_x.get(), grad_weights.get()}, threads);
  for (int64_t i = 0; i < x.count; ++i) expect_near("without inputs", s, again.get()[i], y.get()[i], 0);
  for (int64_t i = 0; i < weights.count; ++i) expect_near("weights alone", s, alone.get()[i], grad_weights.get()[i], 0);
  const auto all = [](const Exact<T>& block) { return std::vector<double>(block.get(), block.get() + block.count); };
  return {all(y), all(grad_x), all(grad_weights)};
}

std::vector<double> expected(const Case& a) {
  std::vector<double> result;
  const int64_t count = int64_t(a.operations.size());
  for (int64_t b = 0; b < a.s.batch; ++b) {
    Image image{a.s, {a.x.begin() + b * a.s.image(), a.x.begin() + (b + 1) * a.s.image()}};
    for (int64_t i = 0; i < a.s.stages; ++i) {
      Image sum = filled(a.s, [](int64_t, int64_t, int64_t) { return 0.0; });
      for (int64_t j = 0; j < count; ++j) {
        DegradationOp o = a.operations[size_t(j)];
        o.values = a.values[size_t(j)].data();
        const Image one = applied(image, o, b * a.s.stages + i);
        const double weight = a.weights[size_t((b * a.s.stages + i) * count + j)];
        for (size_t n = 0; n < sum.at.size(); ++n) sum.at[n] += weight * one.at[n];
      }
      image = sum;
    }
    result.insert(result.end(), image.at.begin(), image.at.end());
  }
  return result;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double total = 0;
  for (size_t i = 0; i < a.size(); ++i) total += a[i] * b[i];
  return total;
}

void check(Case a, int threads) {
  const Shape& s = a.s;
  const Results exact = run<double>(a, DType::float64, threads), single = run<float>(a, DType::float32, threads);
  const std::vector<double> loops = expected(a);
  double largest = 1;
  for (double value : exact.grad_x) largest = std::max(largest, std::fabs(value));
  for (size_t i = 0; i < loops.size(); ++i) {
    expect_near("y", s, exact.y[i], loops[i], 1e-12);
    expect_near("y in float32", s, single.y[i], loops[i], 1e-5 * (1 + std::fabs(loops[i])));
    expect_near("gradient of x in float32", s, single.grad_x[i], exact.grad_x[i], 1e-5 * largest);
  }
  const double of_weight = 1e-4 * largest * double(s.height);
  for (size_t i = 0; i < exact.grad_weights.size(); ++i)
    expect_near("gradient of weights in float32", s, single.grad_weights[i], exact.grad_weights[i], of_weight);
  // A small step of everything changes the result by the gradient. It is so small that no value crosses a bound in it.
  std::mt19937 random(7);
  const double step = 1e-8;
  Case low = a, high = a;
  const std::vector<double> of_x = drawn(random, int64_t(a.x.size()), -1, 1);
  const std::vector<double> of_weights = drawn(random, int64_t(a.weights.size()), -1, 1);
  const auto add = [](std::vector<double>& to, const std::vector<double>& steps, double size) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += size * steps[i];
  };
  add(low.x, of_x, -step), add(high.x, of_x, step);
  add(low.weights, of_weights, -step), add(high.weights, of_weights, step);
  const double change = (dot(a.grad, expected(high)) - dot(a.grad, expected(low))) / (2 * step);
  const double claimed = dot(exact.grad_x, of_x) + dot(exact.grad_weights, of_weights);
  expect_near("gradient", s, claimed, change, 1e-5 * (largest + std::fabs(change)));
}

Case make(const Shape& s, const std::vector<std::pair<DegradationKind, double>>& operations, unsigned seed) {
  std::mt19937 random(seed);
  Case a{s, {}, {}, drawn(random, s.batch * s.image(), -0.1, 1.1), {}, drawn(random, s.batch * s.image(), -1, 1)};
  const int64_t places = s.batch * s.stages;
  a.weights = drawn(random, places * int64_t(operations.size()), -0.2, 0.5);
  for (const auto& [kind, strength] : operations) {
    a.operations.push_back({kind, strength, false, nullptr});
    if (kind == DegradationKind::gaussian_blur || kind == DegradationKind::wide_blur) {
      a.values.push_back(drawn(random, places, 0.8, 2));
      continue;
    }
    const bool of_rows = kind == DegradationKind::row_stripe || kind == DegradationKind::row_gain;
    const int64_t each = kind == DegradationKind::noise || kind == DegradationKind::dead ? s.image()
                         : kind == DegradationKind::pattern                              ? s.height * s.width
                         : kind == DegradationKind::tone                                 ? 2
                         : of_rows                                                       ? s.height
                                                                                         : s.width;
    a.values.push_back(drawn(random, places * each, -0.2, 0.2));
    if (kind == DegradationKind::dead)
      for (double& value : a.values.back()) value = value < 0.1 ? NAN : value;
  }
  return a;
}

// Half types differ from float32 in how rows are read and written, which every length of a row's rest tries.
void check_halves(DType dtype, int64_t width) {
  const int64_t count = 6 * width;
  Exact<uint16_t> x(count), y(count), inputs(count), grad_x(count);
  const Exact<float> weights(std::vector<double>{0.25, 0.75, 1, 0}), grad_weights(4);
  for (int64_t i = 0; i < count; ++i) x.data[i] = uint16_t((dtype == DType::float16 ? 0x3000 : 0x3e00) + i % 64);
  const DegradationOp same = {DegradationKind::identity, 0, false, nullptr}, operations[] = {same, same};
  const DegradationInput mixture = {dtype, 1, 3, 2, width, 2, 2, operations, x.get(), weights.get()};
  kernels().degradation_forward({mixture, y.get(), inputs.get()}, 1);
  kernels().degradation_backward({mixture, inputs.get(), x.get(), grad_x.get(), grad_weights.get()}, 1);
  for (int64_t i = 0; i < count; ++i) {
    expect_near("halves", {1, 3, 2, width, 2}, y.data[i], x.data[i], 0);
    expect_near("gradient of halves", {1, 3, 2, width, 2}, grad_x.data[i], x.data[i], 0);
  }
}

}  // namespace

int main() {
  using D = DegradationKind;
  const std::vector<std::pair<D, double>> pixels = {
      {D::identity, 0},    {D::contrast, 0.5},     {D::contrast, 0.9},  {D::saturation, 0.7}, {D::sharpness, 0.3},
      {D::sharpness, 1.5}, {D::stripe, 0}, {D::row_stripe, 0}, {D::gain, 0},  {D::noise, 0},
      {D::row_gain, 0},    {D::tone, 0},   {D::dead, 0},       {D::pattern, 0}, {D::clip, 0}};
  const std::vector<std::pair<D, double>> windows = {
      {D::gaussian_blur, 0}, {D::gaussian_blur, 0}, {D::max_pool_resize, 2}, {D::max_pool_resize, 3},
      {D::average_pool_resize, 2},  {D::bicubic_resize, 2},       {D::bicubic_resize, 4}};
  std::vector<std::pair<D, double>> all = pixels;
  all.insert(all.end(), windows.begin(), windows.end());
  std::vector<std::pair<D, double>> wide = all;
  wide.insert(wide.end(), {{D::wide_blur, 0}, {D::wide_blur, 0}});
  unsigned seed = 1000;  // with some others, float32 rounds a value to the other side of a clamp than float64
  for (int64_t channels : {1, 3})
    for (int threads : {1, 2, 3}) {
      for (int64_t height : {1, 2, 3})
        for (int64_t width : {1, 2, 3, 17}) check(make({2, channels, height, width, 2}, pixels, ++seed), threads);
      for (int64_t height : {5, 6, 9, 23})
        for (int64_t width : {5, 8, 37, 259})
          check(make({1 + height % 2, channels, height, width, 2}, all, ++seed), threads);
      for (int64_t height : {10, 21, 40})
        for (int64_t width : {10, 19, 70}) check(make({1, channels, height, width, 2}, wide, ++seed), threads);
    }
  for (const auto& one : wide) check(make({3, 3, 12, 24, 1}, {one}, ++seed), 2);
  for (int64_t width = 1; width < 40; ++width)
    for (DType dtype : {DType::float16, DType::bfloat16}) check_halves(dtype, width);
  const Case rounded = make({1, 1, 6, 40, 1}, {{D::quantise, 8}, {D::quantise, 1}}, ++seed);
  const Results of_rounded = run<double>(rounded, DType::float64, 1);
  for (size_t i = 0; i < rounded.x.size(); ++i) {
    const double own = std::clamp(rounded.x[i], 0.0, 1.0);
    const double fine = std::nearbyint(own * 255) / 255, rough = std::nearbyint(own);
    const double result = rounded.weights[0] * fine + rounded.weights[1] * rough;
    const double passes = own == rounded.x[i] ? rounded.grad[i] * (rounded.weights[0] + rounded.weights[1]) : 0;
    expect_near("quantised", rounded.s, of_rounded.y[i], result, 1e-12);
    expect_near("gradient through quantise", rounded.s, of_rounded.grad_x[i], passes, 1e-12);
  }
  Case kept = make({1, 1, 6, 40, 1}, {{D::posterize, 5}, {D::posterize, 1}, {D::posterize, 8}}, ++seed);
  const std::vector<double> loops = expected(kept);
  for (const bool through : {false, true}) {
    for (DegradationOp& o : kept.operations) o.straight_through = through;
    const Results found = run<double>(kept, DType::float64, 1);
    const double weight = kept.weights[0] + kept.weights[1] + kept.weights[2];
    for (size_t i = 0; i < loops.size(); ++i) {
      const bool inside = through && kept.x[i] >= 0 && kept.x[i] <= 1;
      expect_near("posterized", kept.s, found.y[i], loops[i], 1e-12);
      expect_near("gradient through posterize", kept.s, found.grad_x[i], inside ? kept.grad[i] * weight : 0, 1e-12);
    }
  }
  std::printf("%s: %d failures\n", kernels().isa, failures);
  return failures > 0;
}
