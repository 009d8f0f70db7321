// A thread has one neuron and runs through time with its states in registers. Branches on the kind of neuron are the
// same for all threads.
#include "../../types.h"

#include "../../math/models.h"
#include "../common/kernels.h"
#include "../common/launch.h"
#include "../common/memory.h"
#include "../common/numbers.h"

namespace deal {
namespace cuda {
namespace {

constexpr int kSegment = 16;  // steps whose states a backward thread holds
constexpr int kResident = 8;  // backward blocks of a multiprocessor: with this bound no registers are spilled

template <class Call>
struct Arguments {
  Call call;
  Numbers numbers;
  Window<float> window;
  float* starts;
};

DEAL_INLINE int at_most(int most, int count) { return count < most ? count : most; }

__device__ __forceinline__ float parameter(const Parameter& p, double number, int64_t neuron) {
  if (!p.data) return float(number);
  return static_cast<const float*>(p.data)[p.channels <= 1 ? 0 : neuron / p.inner % p.channels];
}

template <class M, class Call>
__device__ __forceinline__ M model_of(const Arguments<Call>& arguments, int64_t neuron) {
  const Call& a = arguments.call;
  typename M::Parameters values;
  unrolled<M::Parameters::count>([&](auto k) {
    values.at[k.value] = parameter(a.parameters[k.value], a.numbers[k.value], neuron);
  });
  return M(with_numbers(a.neuron, arguments.numbers), values);
}

// Values of a neuron in arrays [N], where there are any; the others stay as they are.
template <int n>
__device__ __forceinline__ void load_values(Values<float, n>& values, const void* const* arrays, int64_t neuron) {
  unrolled<n>([&](auto k) {
    if (arrays[k.value]) values.at[k.value] = static_cast<const float*>(arrays[k.value])[neuron];
  });
}

template <int n>
__device__ __forceinline__ void store_values(void* const* arrays, const Values<float, n>& values, int64_t neuron) {
  unrolled<n>([&](auto k) {
    if (arrays[k.value]) static_cast<float*>(arrays[k.value])[neuron] = values.at[k.value];
  });
}

template <class T>
__device__ __forceinline__ void put(void* to, int64_t at, float value) {
  narrow(value, static_cast<T*>(to)[at]);
}

template <class T>
__device__ __forceinline__ const T* input(const MultistateInput& a, int64_t step, int64_t place) {
  return static_cast<const T*>(a.x) + step * a.time_stride + place;
}

// Runs `steps` steps from the step `from` on. Calls take(step of the segment, states before it, moment).
template <class T, class M, class Take>
__device__ __forceinline__ void run(const MultistateInput& a, const M& model, typename M::States& states, int64_t from,
                                    int steps, int64_t place, const Take& take) {
  Queue<T, 1> currents;
  for (int k = 0; k < steps;) {
    const int end = k + at_most(kAhead, steps - k);
    currents.template read<1>(input<T>(a, from + k, place), a.time_stride, end - k, 1);
#pragma unroll 1
    for (; k < end; ++k) {
      const auto now = model.step(states, currents.take().at[0]);
      take(k, states, now);
      states = now.left;
    }
  }
}

template <class M, class T>
__global__ void __launch_bounds__(kBlock) forward(const Arguments<MultistateForward> arguments) {
  const MultistateForward& a = arguments.call;
  const int64_t neuron = first_of_thread(1);
  if (neuron >= a.neurons) return;
  const int64_t place = place_of(a, neuron);
  const M model = model_of<M>(arguments, neuron);
  typename M::States states = model.initial();
  load_values(states, a.starts, neuron);
  const bool record = a.output == Output::states;
  run<T>(a, model, states, 0, int(a.steps), place, [&](int t, const auto&, const auto& now) {
    const int64_t at = t * a.group + place;
    if (record) static_cast<float*>(a.out)[at] = now.left.at[0];
    else put<T>(a.out, at, now.s);
  });
  store_values(a.states, states, neuron);
}

// Reverses the steps of a segment, whose states before each step are in `entered`.
template <class M, class T>
__device__ __forceinline__ void reverse(const Arguments<MultistateBackward>& arguments, const M& model,
                                        const float* entered, typename M::States& grads,
                                        typename M::Parameters& shares, int64_t from, int steps, int64_t place) {
  constexpr int states = M::States::count;
  const MultistateBackward& a = arguments.call;
  const bool record = a.output == Output::states;
#pragma unroll 1
  for (int t = steps - 1; t >= 0; --t) {
    const int64_t at = (from + t) * a.group + place;
    typename M::States before;
    unrolled<states>([&](auto k) { before.at[k.value] = entered[(t * states + k.value) * kBlock]; });
    const float x = widen(*input<T>(a, from + t, place));
    const auto now = model.step(before, x);
    float grad_s = 0;
    if (record) grads.at[0] += static_cast<const float*>(a.grad)[at];
    else grad_s = widen(static_cast<const T*>(a.grad)[at]);
    const float slope = arguments.window.template slope<float>(with_numbers(a.neuron, arguments.numbers), now);
    const auto found = model.reverse(before, x, now, slope, grad_s, grads);
    put<T>(a.grad_x, at, found.x);
    grads = found.entered;
    unrolled<M::Parameters::count>([&](auto k) { shares.at[k.value] += found.parameters.at[k.value]; });
  }
}

// Only x was kept from the forward pass: the states before every step are recomputed, one segment at a time. If there
// are several segments, a first pass stores the states at the start of each but the last.
template <class M, class T>
__global__ void __launch_bounds__(kBlock, kResident) backward(const Arguments<MultistateBackward> arguments) {
  constexpr int states = M::States::count;
  const MultistateBackward& a = arguments.call;
  const int64_t neuron = first_of_thread(1);
  if (neuron >= a.neurons) return;
  const int64_t place = place_of(a, neuron);
  const M model = model_of<M>(arguments, neuron);
  float* const entered = static_cast<float*>(block_memory()) + threadIdx.x;  // [kSegment, states, kBlock]
  const int total = int(a.steps), last = (total - 1) / kSegment;
  typename M::States start = model.initial(), grads = {};
  typename M::Parameters shares = {};
  load_values(start, a.starts, neuron);
  load_values(grads, a.grad_states, neuron);
#pragma unroll 1
  for (int visit = 0; visit <= 2 * last; ++visit) {
    const bool ahead = visit < last;
    const int segment = ahead ? visit : 2 * last - visit;
    const int from = segment * kSegment, steps = at_most(kSegment, total - from);
    unrolled<states>([&](auto k) {
      float* const kept = arguments.starts + (segment * states + k.value) * a.neurons + neuron;
      if (ahead) *kept = start.at[k.value];
      else if (segment < last) start.at[k.value] = *kept;
    });
    run<T>(a, model, start, from, steps, place, [&](int t, const auto& before, const auto&) {
      unrolled<states>([&](auto k) { entered[(t * states + k.value) * kBlock] = before.at[k.value]; });
    });
    if (!ahead) reverse<M, T>(arguments, model, entered, grads, shares, from, steps, place);
  }
  store_values(a.grad_starts, grads, neuron);
  store_values(a.grad_parameters, shares, neuron);
}

template <class Call>
const char* launch_each(void (*kernel)(Arguments<Call>), const Call& a, float* starts, int bytes, cudaStream_t stream) {
  return launch(kernel, Arguments<Call>{a, numbers_of(a.neuron), Window<float>(a), starts}, a.neurons, bytes, stream);
}

int states_of(const MultistateInput& a) { return a.model == Model::lsnn ? 3 : 2; }

}  // namespace

const char* multistate_forward(const MultistateForward& a, void*, CUstream_st* stream) {
  return with_type(a.dtype, [&](auto type) {
    return with_model(a.model, [&](auto of) {
      using M = typename decltype(of)::template model<float>;
      return launch_each(forward<M, decltype(type)>, a, nullptr, 0, stream);
    });
  });
}

// The states at the start of every segment, if there are several.
int64_t workspace_bytes(const MultistateBackward& a) {
  const int64_t segments = (a.steps + kSegment - 1) / kSegment;
  return segments > 1 ? segments * states_of(a) * a.neurons * int64_t(sizeof(float)) : 0;
}

const char* multistate_backward(const MultistateBackward& a, void* workspace, CUstream_st* stream) {
  const int bytes = states_of(a) * at_most(kSegment, int(a.steps)) * int(sizeof(float));
  return with_type(a.dtype, [&](auto type) {
    return with_model(a.model, [&](auto of) {
      using M = typename decltype(of)::template model<float>;
      return launch_each(backward<M, decltype(type)>, a, static_cast<float*>(workspace), bytes, stream);
    });
  });
}

}  // namespace cuda
}  // namespace deal
