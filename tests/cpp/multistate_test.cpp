// Neurons with several states against the same mathematics run on one neuron at a time, in buffers of exactly the size
// they need, so that a sanitizer sees every stray access.
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/cpu/common/kernels.h"
#include "../../csrc/cpu/common/logistic.h"
#include "../../csrc/math/models.h"

using namespace deal;
using namespace deal::DEAL_ISA;

namespace {

int failures = 0;

enum class Given : int { none, some, all };

bool is_given(Given given, int k) { return given == Given::all || (given == Given::some && k % 2 == 1); }

// Values with no slack: a sanitizer sees any access past them.
template <class T>
using Exact = std::unique_ptr<T[]>;

template <class T>
Exact<T> exact(int64_t count) {
  return Exact<T>(new T[size_t(count)]);
}

template <class S>
Pack<S> all(S value) {
  return {value - vector<S>{}};
}

template <class T>
compute_t<T> widened(T value) {
  T lanes[Pack<compute_t<T>>::lanes] = {value};
  return load(lanes).v[0];
}

template <class T>
T narrowed(compute_t<T> value) {
  T lanes[Pack<compute_t<T>>::lanes];
  store(lanes, all(value));
  return lanes[0];
}

template <class T>
Exact<T> random_values(int64_t count, std::mt19937& random) {
  Exact<T> values = exact<T>(count);
  std::normal_distribution<float> normal(0.3f, 1.2f);
  for (int64_t i = 0; i < count; ++i) values[i] = narrowed<T>(normal(random));
  return values;
}

struct Case {
  Model model;
  Neuron neuron;
  bool windowed;
  Given given;
  Output output;
  int64_t steps, neurons;
  int64_t group = neurons;

  // Where a neuron is at a step, in tensors that have all steps.
  int64_t at(int64_t step, int64_t n) const { return (n / group * steps + step) * group + n % group; }
};

template <class T, class S>
void expect_equal(const char* what, const Case& c, int64_t i, const T& got, S expected) {
  if (widened(got) == widened(narrowed<T>(expected))) return;
  if (++failures > 20) return;
  std::printf("%s: model %d reset %d given %d output %d T %ld N %ld, %ld bytes, at %ld: %g, expected %g\n", what,
              int(c.model), int(c.neuron.reset), int(c.given), int(c.output), long(c.steps), long(c.neurons),
              long(sizeof(T)), long(i), double(widened(got)), double(expected));
}

// The tensors of a call. O is the type of its result.
template <class T, class O>
struct Tensors {
  using S = compute_t<T>;
  Exact<T> x, grad_x;
  Exact<O> out, grad;
  Exact<S> starts[kMostStates], states[kMostStates], grad_states[kMostStates], grad_starts[kMostStates];
  Exact<S> parameters[kMostParameters], grad_parameters[kMostParameters];
  MultistateForward forward{};
  MultistateBackward backward{};

  Tensors(const Case& c, std::mt19937& random) {
    const int64_t all = c.steps * c.neurons;
    x = random_values<T>(all, random), grad = random_values<O>(all, random);
    out = exact<O>(all), grad_x = exact<T>(all);
    MultistateInput input{c.model, c.neuron, c.windowed, -0.5, 2.0, DType::float32, c.output, c.steps, c.neurons, c.group,
                          c.group, x.get(), {}, {}, {c.neuron.threshold, c.neuron.decay, 0.6, 0.4, 0.5}};
    for (int k = 0; k < kMostParameters; ++k) {
      if (!is_given(c.given, k)) continue;
      const int64_t inner = k == 1 ? 3 : 1, channels = k == 0 ? 1 : k == 1 ? 5 : c.neurons;
      parameters[k] = exact<S>(channels), grad_parameters[k] = exact<S>(c.neurons);
      for (int64_t i = 0; i < channels; ++i) parameters[k][i] = S(input.numbers[k] * (1 + 0.1 * double(i % 7)));
      input.parameters[k] = {parameters[k].get(), channels, inner};
    }
    for (int k = 0; k < kMostStates; ++k) {
      if (!is_given(c.given, k)) continue;
      starts[k] = random_values<S>(c.neurons, random), grad_states[k] = random_values<S>(c.neurons, random);
      states[k] = exact<S>(c.neurons), grad_starts[k] = exact<S>(c.neurons);
      input.starts[k] = starts[k].get();
    }
    static_cast<MultistateInput&>(forward) = static_cast<MultistateInput&>(backward) = input;
    forward.out = out.get(), backward.grad = grad.get(), backward.grad_x = grad_x.get();
    for (int k = 0; k < kMostStates; ++k) {
      forward.states[k] = states[k].get();
      backward.grad_states[k] = grad_states[k].get(), backward.grad_starts[k] = grad_starts[k].get();
    }
    for (int k = 0; k < kMostParameters; ++k) backward.grad_parameters[k] = grad_parameters[k].get();
  }
};

// Runs one neuron forward and back, and compares all results.
template <class ModelOf, class T, class O>
void check_neuron(const Case& c, const Tensors<T, O>& t, int64_t n) {
  using S = compute_t<T>;
  using V = Pack<S>;
  using Formulas = typename ModelOf::template model<V>;
  constexpr int states = Formulas::States::count, parameters = Formulas::Parameters::count;
  const MultistateInput& input = t.forward;
  const bool record = c.output == Output::states;
  typename Formulas::Parameters values, shares{};
  for (int k = 0; k < parameters; ++k) {
    const Parameter& p = input.parameters[k];
    values.at[k] = all(p.data ? t.parameters[k][n / p.inner % p.channels] : S(input.numbers[k]));
  }
  const Formulas model(c.neuron, values);

  auto state = model.initial();
  for (int k = 0; k < states; ++k)
    if (t.starts[k]) state.at[k] = all(t.starts[k][n]);
  std::vector<typename Formulas::States> entered;
  std::vector<typename Formulas::Moment> moments;
  for (int64_t step = 0; step < c.steps; ++step) {
    const int64_t at = c.at(step, n);
    entered.push_back(state);
    moments.push_back(model.step(state, all(widened(t.x[at]))));
    state = moments.back().left;
    expect_equal("out", c, at, t.out[at], record ? state.at[0].v[0] : moments.back().s.v[0]);
  }
  for (int k = 0; k < states; ++k)
    if (t.states[k]) expect_equal("state", c, n, t.states[k][n], state.at[k].v[0]);

  const Window<S> window(input);
  typename Formulas::States grads{};
  for (int k = 0; k < states; ++k)
    if (t.grad_states[k]) grads.at[k] = all(t.grad_states[k][n]);
  for (int64_t step = c.steps - 1; step >= 0; --step) {
    const int64_t at = c.at(step, n);
    const auto& now = moments[size_t(step)];
    const V grad = all(widened(t.grad[at]));
    if (record) grads.at[0] = grads.at[0] + grad;
    const auto found = model.reverse(entered[size_t(step)], all(widened(t.x[at])), now,
                                     window.template slope<V>(c.neuron, now), record ? V{} : grad, grads);
    expect_equal("grad x", c, at, t.grad_x[at], found.x.v[0]);
    grads = found.entered;
    for (int k = 0; k < parameters; ++k) shares.at[k] = shares.at[k] + found.parameters.at[k];
  }
  for (int k = 0; k < states; ++k)
    if (t.grad_starts[k]) expect_equal("grad start", c, n, t.grad_starts[k][n], grads.at[k].v[0]);
  for (int k = 0; k < parameters; ++k)
    if (t.grad_parameters[k]) expect_equal("grad parameter", c, n, t.grad_parameters[k][n], shares.at[k].v[0]);
}

template <class T, class O>
void run(const Case& c, DType dtype, int threads) {
  std::mt19937 random(unsigned(c.steps * 1000 + c.neurons));
  Tensors<T, O> t(c, random);
  t.forward.dtype = t.backward.dtype = dtype;
  kernels().multistate_forward(t.forward, threads);
  kernels().multistate_backward(t.backward, threads);
  with_model(c.model, [&](auto of) {
    for (int64_t n = 0; n < c.neurons; ++n) check_neuron<decltype(of)>(c, t, n);
  });
}

template <class T>
void run_both(Case c, DType dtype, int threads = 1) {
  c.output = Output::spikes;
  run<T, T>(c, dtype, threads);
  c.output = Output::states;
  run<T, compute_t<T>>(c, dtype, threads);
}

Neuron neuron_of(Reset reset, Surrogate surrogate) {
  Neuron neuron{};
  neuron.charge = reset == Reset::hard ? Charge::decay_input : reset == Reset::soft ? Charge::beta : Charge::decay;
  neuron.fire = reset == Reset::soft ? Fire::gt : Fire::ge;
  neuron.reset = reset;
  neuron.surrogate = surrogate;
  neuron.detach_reset = reset == Reset::none;
  neuron.carries = true;
  neuron.rate = reset == Reset::hard || reset == Reset::next_hard;
  neuron.decay = neuron.rate ? 0.3 : reset == Reset::soft ? 0.7 : 3.0;
  neuron.threshold = 0.9;
  neuron.rest = neuron.reset_to = neuron.rate ? -0.2 : 0.0;
  neuron.own_amount = reset == Reset::twice_soft;
  neuron.amount = 0.6;
  neuron.alpha = 1.3;
  neuron.height = 1.6;
  neuron.levels = neuron.scale = 1;
  return neuron;
}

const Neuron kNeurons[] = {
    neuron_of(Reset::hard, Surrogate::sigmoid),         neuron_of(Reset::soft, Surrogate::atan),
    neuron_of(Reset::none, Surrogate::rectangle),       neuron_of(Reset::next_hard, Surrogate::triangle),
    neuron_of(Reset::twice_soft, Surrogate::fast_sigmoid),
};

const int64_t kSizes[][2] = {{1, 1}, {1, 17}, {37, 1}, {37, 33}, {18, 530}};  // steps, neurons

}  // namespace

int main() {
  for (const Model model : {Model::cuba, Model::alif, Model::lsnn, Model::clif}) {
    for (const Neuron& neuron : kNeurons)
      for (const Given given : {Given::none, Given::some, Given::all})
        for (const auto& [steps, neurons] : kSizes) {
          const Case c{model, neuron, given == Given::some, given, Output::spikes, steps, neurons};
          run_both<float>(c, DType::float32);
          if (neurons == 530) continue;
          run_both<Half>(c, DType::float16);
          run_both<BFloat>(c, DType::bfloat16);
          run_both<double>(c, DType::float64);
        }
    for (const int threads : {1, 3})
      for (const int64_t steps : {1, 4, 18})
        for (const int64_t group : {1, 64, 67, 530})
          run_both<float>({model, kNeurons[1], true, Given::some, Output::spikes, steps, 40 * group, group},
                          DType::float32, threads);
    for (const int threads : {1, 2, 3})
      run_both<float>({model, kNeurons[0], false, Given::all, Output::spikes, 4, 50'003}, DType::float32, threads);
  }
  std::printf("%s: %d failures\n", kernels().isa, failures);
  return failures ? 1 : 0;
}
