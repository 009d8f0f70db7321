// The batch norm kernels, and the neuron that normalises its own input, against loops over scalars and
// against each other, in buffers of exactly the size they need, so that a sanitizer sees every stray access.
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/cpu/common/kernels.h"
#include "../../csrc/math/norm.h"

using namespace deal;

namespace {

int failures = 0;

// Values with no slack: a sanitizer sees any access past them.
struct Exact {
  explicit Exact(int64_t count) : count(count), data(new float[size_t(count)]) {}
  int64_t count;
  std::unique_ptr<float[]> data;
  float* get() const { return data.get(); }
};

Exact random_values(int64_t count, std::mt19937& random) {
  Exact values(count);
  std::normal_distribution<float> normal(0.3f, 1.2f);
  for (int64_t i = 0; i < count; ++i) values.data[i] = normal(random);
  return values;
}

struct Layout {
  int64_t steps, outer, channels, inner;
  int64_t neurons() const { return outer * channels * inner; }
  int64_t channel(int64_t i) const { return i % neurons() / inner % channels; }
};

void expect_near(const char* what, const Layout& l, double got, double expected, double tolerance) {
  if (std::fabs(got - expected) <= tolerance * (1 + std::fabs(expected))) return;
  std::printf("%s: [%ld, %ld, %ld, %ld]: %g, expected %g\n", what, long(l.steps), long(l.outer), long(l.channels),
              long(l.inner), got, expected);
  ++failures;
}

// The sums over each channel of of(element, channel).
template <class Of>
std::vector<double> sums_of(const Layout& l, int64_t count, const Of& of) {
  std::vector<double> sums(size_t(l.channels), 0);
  for (int64_t i = 0; i < count; ++i) sums[size_t(l.channel(i))] += of(i, l.channel(i));
  return sums;
}

void expect_sums(const Layout& l, int64_t count, const Exact& grad, const Exact& x, const Exact& mean,
                 const Exact& got) {
  const auto totals = sums_of(l, count, [&](int64_t i, int64_t) { return double(grad.data[i]); });
  const auto products =
      sums_of(l, count, [&](int64_t i, int64_t c) { return double(grad.data[i]) * (x.data[i] - mean.data[c]); });
  for (int64_t c = 0; c < l.channels; ++c) {
    expect_near("sum of gradients", l, got.data[c], totals[c], 1e-4);
    expect_near("sum of products", l, got.data[l.channels + c], products[c], 1e-4);
  }
}

void check_norm(const Layout& l, int threads) {
  std::mt19937 random(unsigned(l.steps * 100 + l.inner));
  const int64_t all = l.steps * l.neurons(), values = all / l.channels;
  const Exact x = random_values(all, random), grad = random_values(all, random);
  const Exact scale = random_values(l.channels, random), shift = random_values(l.channels, random);
  const Exact factor = random_values(l.channels, random);
  Exact mean(l.channels), variance(l.channels), y(all), sums(2 * l.channels), grad_x(all);
  const TdbnInput channels = {DType::float32, l.steps, l.neurons(), l.neurons(), l.channels, l.inner, x.get()};
  const Kernels& k = kernels();
  k.tdbn_moments({channels, mean.get(), variance.get()}, threads);
  k.tdbn_normalise({channels, mean.get(), scale.get(), shift.get(), y.get()}, threads);
  k.tdbn_gradient_sums({channels, grad.get(), mean.get(), sums.get()}, threads);
  k.tdbn_gradient({channels, grad.get(), mean.get(), scale.get(), shift.get(), factor.get(), grad_x.get()}, threads);

  const std::vector<double> totals = sums_of(l, all, [&](int64_t i, int64_t) { return double(x.data[i]); });
  const auto distance = [&](int64_t i, int64_t c) { return x.data[i] - totals[c] / double(values); };
  const auto squares = sums_of(l, all, [&](int64_t i, int64_t c) { return distance(i, c) * distance(i, c); });
  expect_sums(l, all, grad, x, mean, sums);
  for (int64_t c = 0; c < l.channels; ++c) {
    expect_near("mean", l, mean.data[c], totals[c] / double(values), 1e-6);
    expect_near("variance", l, variance.data[c], squares[c] / double(values), 1e-5);
  }
  for (int64_t i = 0; i < all; ++i) {
    const int64_t c = l.channel(i);
    expect_near("y", l, y.data[i], normalised(x.data[i], mean.data[c], scale.data[c], shift.data[c]), 0);
    const float expected =
        norm_gradient(grad.data[i], x.data[i], mean.data[c], scale.data[c], shift.data[c], factor.data[c]);
    expect_near("gradient", l, grad_x.data[i], expected, 0);
  }
}

void check_neuron(const Layout& l, bool constant, int threads) {
  std::mt19937 random(unsigned(l.steps * 100 + l.outer));
  const int64_t neurons = l.neurons(), all = l.steps * neurons, given = constant ? neurons : all;
  const Exact x = random_values(given, random), grad = random_values(all, random),
              shortcut = random_values(given, random);
  const Exact mean = random_values(l.channels, random), scale = random_values(l.channels, random);
  const Exact shift = random_values(l.channels, random);
  Exact y(given), out(all), expected(all), grad_x(given), expected_grad(given), sums(2 * l.channels);
  for (int64_t i = 0; i < given; ++i) {
    const int64_t c = l.channel(i);
    y.data[i] = normalised(x.data[i], mean.data[c], scale.data[c], shift.data[c]) + shortcut.data[i];
  }
  Neuron neuron{};
  neuron.charge = Charge::decay_input;
  neuron.reset = Reset::soft;
  neuron.surrogate = Surrogate::atan;
  neuron.carries = neuron.rate = true;
  neuron.decay = 0.5;
  neuron.threshold = 0.7;
  neuron.alpha = 2;
  neuron.levels = neuron.scale = 1;
  const auto of_channel = [&](const Exact& b) { return Parameter{b.get(), l.channels, l.inner}; };
  const LifInput plain = {neuron,  DType::float32, Output::spikes,  l.steps,         neurons, neurons, constant ? 0 : neurons,
                          y.get(), nullptr,        {nullptr, 1, 1}, {nullptr, 1, 1}, {}};
  LifInput normed = plain;
  normed.x = x.get();
  normed.norm = {of_channel(mean), of_channel(scale), of_channel(shift), shortcut.get()};
  const auto run = [&](const LifInput& input, const Exact& spikes, const Exact& gradient, float* norm_sums) {
    kernels().lif_forward({input, spikes.get(), nullptr}, threads);
    kernels().lif_backward({input, constant, grad.get(), nullptr, nullptr, gradient.get(), nullptr, nullptr, nullptr,
                            norm_sums},
                           threads);
  };
  run(plain, expected, expected_grad, nullptr);
  run(normed, out, grad_x, sums.get());
  for (int64_t i = 0; i < all; ++i) expect_near("spikes", l, out.data[i], expected.data[i], 0);
  for (int64_t i = 0; i < given; ++i) expect_near("gradient of the input", l, grad_x.data[i], expected_grad.data[i], 0);
  expect_sums(l, given, grad_x, x, mean, sums);
}

}  // namespace

int main() {
  for (int64_t steps : {3, 20})
    for (int64_t outer : {1, 9})
      for (int64_t channels : {1, 3, 32})
        for (int64_t inner : {1, 7, 129})
          for (int threads : {1, 2}) {
            const Layout layout = {steps, outer, channels, inner};
            check_norm(layout, threads);
            for (bool constant : {false, true}) check_neuron(layout, constant, threads);
          }
  std::printf("%s: %d failures\n", kernels().isa, failures);
  return failures > 0;
}
