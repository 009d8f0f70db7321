// The CPU kernels against the same mathematics run on one scalar neuron at a time, in buffers of
// exactly the size they need, so that a sanitizer sees every stray access.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/cpu/common/kernels.h"
#include "../../csrc/math/neuron.h"

using namespace deal;

namespace {

int failures = 0;

// Values with no slack: a sanitizer sees any access past them.
struct Exact {
  explicit Exact(size_t count) : count(count), data(new float[count]) {}
  size_t count;
  std::unique_ptr<float[]> data;
};

Exact random_values(size_t count, std::mt19937& random) {
  Exact values(count);
  std::normal_distribution<float> normal(0.3f, 1.2f);
  for (size_t i = 0; i < count; ++i) values.data[i] = normal(random);
  return values;
}

void expect_near(const char* what, const Neuron& n, int64_t steps, int64_t neurons, const Exact& got,
                 const std::vector<float>& expected, float tolerance) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::fabs(got.data[i] - expected[i]) <= tolerance * (1 + std::fabs(expected[i]))) continue;
    std::printf("%s: charge %d fire %d reset %d T %ld N %ld at %zu: %g, expected %g\n", what, int(n.charge),
                int(n.fire), int(n.reset), long(steps), long(neurons), i, got.data[i], expected[i]);
    ++failures;
    return;
  }
}

void run(const Neuron& neuron, int64_t steps, int64_t neurons, int threads) {
  std::mt19937 random(unsigned(steps * 1000 + neurons));
  const size_t all = size_t(steps * neurons), one = size_t(neurons);
  const Exact x = random_values(all, random), grad = random_values(all, random), v0 = random_values(one, random);
  const Exact grad_v = random_values(one, random);
  Exact out(all), v(one), grad_x(all), grad_v0(one), grad_decay(one), grad_threshold(one);

  LifInput input{neuron, DType::float32, Output::spikes, steps, neurons, neurons, neurons, x.data.get(), v0.data.get(),
                 {nullptr, 1, 1}, {nullptr, 1, 1}, {}};
  kernels().lif_forward(LifForward{input, out.data.get(), v.data.get()}, threads);
  kernels().lif_backward(LifBackward{input, false, grad.data.get(), grad_v.data.get(), nullptr,
                                     grad_x.data.get(), grad_v0.data.get(), grad_decay.data.get(), grad_threshold.data.get(), nullptr},
                         threads);

  const Cell<float> cell{neuron, float(neuron.decay), float(neuron.threshold)};
  std::vector<float> spikes(all), last(one), gx(all), gv0(one), gd(one), gt(one), h(all), entered(all);
  for (int64_t i = 0; i < neurons; ++i) {
    float state = v0.data[i];
    for (int64_t t = 0; t < steps; ++t) {
      const int64_t at = t * neurons + i;
      entered[at] = state;
      h[at] = cell.charge(state, x.data[at]);
      spikes[at] = cell.fire(h[at]);
      state = cell.reset(state, h[at], spikes[at]);
    }
    last[i] = state;
    float carried = grad_v.data[i];
    for (int64_t t = steps - 1; t >= 0; --t) {
      const int64_t at = t * neurons + i;
      const float slope = cell.spike_slope(h[at]);
      const float grad_s = grad.data[at] * float(neuron.scale);
      const float grad_h = cell.charge_gradient(h[at], spikes[at], slope, grad_s, carried);
      gt[i] += cell.threshold_gradient(entered[at], h[at], spikes[at], slope, grad_s, carried, grad_h);
      gd[i] += cell.decay_gradient(x.data[at], entered[at], grad_h);
      gx[at] = grad_h * cell.input_share();
      carried = cell.state_gradient(entered[at], grad_h, cell.state_share());
    }
    gv0[i] = carried;
  }
  std::vector<float> scaled(spikes);
  for (float& s : scaled) s *= float(neuron.scale);
  expect_near("spikes", neuron, steps, neurons, out, scaled, 0);
  expect_near("state", neuron, steps, neurons, v, last, 0);
  expect_near("grad x", neuron, steps, neurons, grad_x, gx, 2e-5f);
  expect_near("grad v0", neuron, steps, neurons, grad_v0, gv0, 2e-5f);
  expect_near("grad decay", neuron, steps, neurons, grad_decay, gd, 1e-4f);
  expect_near("grad threshold", neuron, steps, neurons, grad_threshold, gt, 1e-4f);

  LifInput mean = input;
  mean.output = Output::mean;
  Exact rate(one);
  kernels().lif_forward(LifForward{mean, rate.data.get(), nullptr}, threads);
  std::vector<float> rates(one);
  for (size_t i = 0; i < all; ++i) rates[i % one] += spikes[i];
  for (float& r : rates) r = r / float(steps) * float(neuron.scale);
  expect_near("mean", neuron, steps, neurons, rate, rates, 0);

  LifInput record = input;
  record.output = Output::membranes;
  Exact membranes(all);
  kernels().lif_forward(LifForward{record, membranes.data.get(), nullptr}, threads);
  expect_near("membranes", neuron, steps, neurons, membranes, h, 0);

  if (neuron.fire == Fire::levels) return;
  LifInput packed = input;
  packed.output = Output::packed;
  const size_t width = (one + 7) / 8;
  std::unique_ptr<uint8_t[]> bits(new uint8_t[width * size_t(steps)]);
  kernels().lif_forward(LifForward{packed, bits.get(), nullptr}, threads);
  for (int64_t t = 0; t < steps; ++t)
    for (int64_t i = 0; i < neurons; ++i)
      if ((bits[size_t(t) * width + size_t(i / 8)] >> (i % 8) & 1) != int(spikes[size_t(t * neurons + i)])) {
        std::printf("bit of step %ld, neuron %ld of %ld\n", long(t), long(i), long(neurons));
        ++failures;
        return;
      }
}

// The same neurons side by side and in groups.
void run_groups(const Neuron& neuron, int64_t steps, int64_t groups, int64_t group, int threads) {
  std::mt19937 random(unsigned(steps * 1000 + group));
  const int64_t neurons = groups * group;
  const size_t all = size_t(steps * neurons), one = size_t(neurons);
  const Exact x = random_values(all, random), grad = random_values(all, random), v0 = random_values(one, random);
  const auto in_groups = [&](const Exact& from) {
    Exact to(all);
    for (int64_t t = 0; t < steps; ++t)
      for (int64_t n = 0; n < neurons; ++n)
        to.data[size_t((n / group * steps + t) * group + n % group)] = from.data[size_t(t * neurons + n)];
    return to;
  };
  const auto outputs = [&](const Exact& x, const Exact& grad, int64_t group, Exact* out, Exact* v, Exact* grad_x) {
    const LifInput input{neuron, DType::float32, Output::spikes, steps, neurons, group, group, x.data.get(),
                         v0.data.get(), {nullptr, 1, 1}, {nullptr, 1, 1}, {}};
    kernels().lif_forward(LifForward{input, out->data.get(), v->data.get()}, threads);
    kernels().lif_backward(LifBackward{input, false, grad.data.get(), nullptr, nullptr, grad_x->data.get(), nullptr,
                                       nullptr, nullptr, nullptr},
                           threads);
  };
  Exact out(all), v(one), grad_x(all), plain_out(all), plain_v(one), plain_grad_x(all);
  outputs(x, grad, neurons, &plain_out, &plain_v, &plain_grad_x);
  outputs(in_groups(x), in_groups(grad), group, &out, &v, &grad_x);
  const auto values = [](const Exact& from, size_t count) {
    return std::vector<float>(from.data.get(), from.data.get() + count);
  };
  expect_near("spikes in groups", neuron, steps, group, out, values(in_groups(plain_out), all), 0);
  expect_near("states of groups", neuron, steps, group, v, values(plain_v, one), 0);
  expect_near("grad x in groups", neuron, steps, group, grad_x, values(in_groups(plain_grad_x), all), 0);
}

Neuron usual(Surrogate surrogate) {
  Neuron neuron{};
  neuron.charge = Charge::decay_input;
  neuron.fire = Fire::ge;
  neuron.reset = Reset::hard;
  neuron.surrogate = surrogate;
  neuron.carries = neuron.rate = true;
  neuron.decay = 0.5;
  neuron.threshold = 0.9;
  neuron.amount = 0.6;
  neuron.alpha = 1.3;
  neuron.height = 1.6;
  neuron.outside = 0.1;
  neuron.levels = neuron.scale = 1;
  return neuron;
}

}  // namespace

int main() {
  for (const Charge charge : {Charge::decay_input, Charge::decay, Charge::beta})
    for (const Fire fire : {Fire::ge, Fire::gt, Fire::levels})
      for (const Reset reset : {Reset::hard, Reset::soft, Reset::none, Reset::next_hard, Reset::next_soft,
                                Reset::twice_soft})
        for (const Surrogate surrogate :
             {Surrogate::sigmoid, Surrogate::atan, Surrogate::triangle, Surrogate::rectangle, Surrogate::fast_sigmoid,
              Surrogate::erf, Surrogate::exponential, Surrogate::sides, Surrogate::window})
          for (const bool detach : {false, true}) {
            Neuron neuron = usual(surrogate);
            neuron.charge = charge;
            neuron.fire = fire;
            neuron.reset = reset;
            neuron.detach_reset = detach;
            neuron.rate = detach && charge != Charge::beta;
            neuron.decay = charge == Charge::beta ? 0.7 : neuron.rate ? 0.3 : 3.0;
            neuron.rest = neuron.reset_to = reset == Reset::hard || reset == Reset::next_hard ? -0.2 : 0.0;
            neuron.own_amount = detach;
            neuron.scale = detach ? 0.5 : 1.0;
            neuron.levels = 4;
            for (const int64_t steps : {1, 5, 37})
              for (const int64_t neurons : {1, 17, 530}) run(neuron, steps, neurons, 1);
          }
  for (const int threads : {1, 2, 3}) run(usual(Surrogate::sigmoid), 4, 100'003, threads);
  for (const int threads : {1, 3})
    for (const int64_t steps : {1, 4, 18})
      for (const int64_t group : {1, 64, 67, 530})
        for (const int64_t groups : {2, 40}) run_groups(usual(Surrogate::atan), steps, groups, group, threads);
  std::printf("%s: %d failures\n", kernels().isa, failures);
  return failures ? 1 : 0;
}
