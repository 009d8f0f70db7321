// Parallel spiking neurons against loops over scalars, in buffers of exactly the size they need, so that a sanitizer sees
// every stray access.
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/cpu/common/kernels.h"
#include "../../csrc/math/surrogate.h"

using namespace deal;

namespace {

int failures = 0;

// Values with no slack: a sanitizer sees any access past them.
struct Exact {
  explicit Exact(int64_t count) : count(count), data(new float[size_t(count)]) {}
  int64_t count;
  std::unique_ptr<float[]> data;
};

Exact random_values(int64_t count, std::mt19937& random) {
  Exact values(count);
  std::normal_distribution<float> normal(0.0f, 0.5f);
  for (int64_t i = 0; i < count; ++i) values.data[i] = normal(random);
  return values;
}

void expect_near(const char* what, const PsnInput& a, const Exact& got, const std::vector<double>& expected,
                 double tolerance) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::fabs(got.data[i] - expected[i]) <= tolerance * (1 + std::fabs(expected[i]))) continue;
    std::printf("%s: T %ld N %ld band %ld %s at %zu: %g, expected %g\n", what, long(a.steps), long(a.neurons),
                long(a.band), a.sliding ? "sliding" : "matrix", i, got.data[i], expected[i]);
    ++failures;
    return;
  }
}

// The place of the weight of input s in step t; -1: there is none.
int64_t weight_at(const PsnInput& a, int64_t t, int64_t s) {
  if (a.band > 0 && (s > t || s <= t - a.band)) return -1;
  return a.sliding ? a.band - 1 - (t - s) : t * a.steps + s;
}

void run(int64_t steps, int64_t neurons, int64_t band, bool sliding, int64_t skipped, int threads, int64_t groups = 1) {
  std::mt19937 random(unsigned(steps * 1000 + neurons + band));
  const int64_t weights = sliding ? band : steps * steps, biases = sliding ? 1 : steps;
  const int64_t all = steps * neurons, outputs = (steps - skipped) * neurons;
  const Exact x = random_values(all, random), grad = random_values(outputs, random);
  const Exact weight = random_values(weights, random), bias = random_values(biases, random);
  Exact spikes(outputs), membranes(outputs), grad_x(all), grad_weight(weights), grad_bias(biases);

  const int64_t group = neurons / groups;
  const PsnInput a{DType::float32, steps, neurons, group, group, skipped, band, sliding, x.data.get(),
                   weight.data.get(), bias.data.get()};
  // Where a neuron is at one of all steps; where some are skipped, there is one group.
  const auto place = [&](int64_t t, int64_t n) { return (n / group * steps + t) * group + n % group; };
  kernels().psn_forward({a, false, spikes.data.get()}, threads);
  kernels().psn_forward({a, true, membranes.data.get()}, threads);
  kernels().psn_backward({a, Surrogate::atan, 2.0, 0.0, 0.0, grad.data.get(), grad_x.data.get(), grad_weight.data.get(),
                          grad_bias.data.get(), nullptr},
                         threads);

  const Exact* const gradients[] = {&grad_x, &grad_weight, &grad_bias};
  for (int wanted = 0; wanted < 3; ++wanted) {
    const Exact alone(gradients[wanted]->count);
    float* results[3] = {};
    results[wanted] = alone.data.get();
    kernels().psn_backward({a, Surrogate::atan, 2.0, 0.0, 0.0, grad.data.get(), results[0], results[1], results[2],
                            nullptr},
                           threads);
    const float* const expected = gradients[wanted]->data.get();
    expect_near("a gradient alone", a, alone, std::vector<double>(expected, expected + alone.count), 0);
  }

  std::vector<double> h(size_t(outputs), 0), s(size_t(outputs), 0), gx(size_t(all), 0), gw(size_t(weights), 0),
      gb(size_t(biases), 0);
  for (int64_t t = skipped; t < steps; ++t)
    for (int64_t n = 0; n < neurons; ++n) {
      float sum = 0;
      for (int64_t k = 0; k < steps; ++k)
        if (const int64_t w = weight_at(a, t, k); w >= 0)
          sum = std::fma(weight.data[w], x.data[place(k, n)], sum);
      const int64_t at = place(t - skipped, n), b = sliding ? 0 : t;
      const float total = sum + bias.data[b];
      h[size_t(at)] = total;
      s[size_t(at)] = total >= 0;
      const double grad_h = double(grad.data[at]) * surrogate_slope<double>(Surrogate::atan, 2.0, 0.0, 0.0, total);
      gb[size_t(b)] += grad_h;
      for (int64_t k = 0; k < steps; ++k)
        if (const int64_t w = weight_at(a, t, k); w >= 0) {
          gx[size_t(place(k, n))] += grad_h * weight.data[w];
          gw[size_t(w)] += grad_h * x.data[place(k, n)];
        }
    }
  expect_near("h", a, membranes, h, 0);
  expect_near("spikes", a, spikes, s, 0);
  expect_near("grad x", a, grad_x, gx, 1e-5);
  expect_near("grad weight", a, grad_weight, gw, 1e-4);
  expect_near("grad bias", a, grad_bias, gb, 1e-4);
}

}  // namespace

int main() {
  for (const int64_t steps : {1, 2, 5, 16, 70})
    for (const int64_t neurons : {1, 17, 530}) {
      for (const int64_t band : {0, 1, 4}) run(steps, neurons, band, false, 0, 1);
      for (const int64_t k : {1, 3, 8}) run(steps, neurons, k, true, 0, 1);
      for (const int64_t k : {2, 8}) run(steps + k - 1, neurons, k, true, k - 1, 1);
    }
  for (const int threads : {1, 2, 3}) {
    run(4, 50'003, 0, false, 0, threads);
    run(4, 50'003, 3, true, 2, threads);
    for (const int64_t group : {1, 64, 67, 530})
      for (const int64_t steps : {1, 5, 18}) {
        run(steps, 41 * group, 0, false, 0, threads, 41);
        run(steps, 41 * group, 3, true, 0, threads, 41);
      }
  }
  std::printf("%s: %d failures\n", kernels().isa, failures);
  return failures ? 1 : 0;
}
