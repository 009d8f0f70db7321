// A thread has a few neighbouring neurons and computes a group of up to kSums steps of them in registers: it reads the
// inputs of the group once. A longer sequence has several groups, each with threads of its own.
#include "../../math/psn.h"
#include "../../math/surrogate.h"
#include "../common/kernels.h"
#include "../common/launch.h"
#include "../common/memory.h"

namespace deal {
namespace cuda {
namespace {

constexpr int kSums = 16;
constexpr int kResident = 3;  // blocks of a multiprocessor: with this bound the compiler does not spill registers
constexpr int kWide = 4;  // neurons of a thread if rows consist of whole words, otherwise 1

template <class Psn>
struct Arguments {
  Psn psn;
  int64_t blocks;  // of a group
  float alpha, height, outside;
};

// A thread's first neuron, where its first step is, and the steps of its group.
struct Place {
  int64_t neuron, at, first;
  int steps;

  template <class Psn>
  __device__ __forceinline__ Place(const Arguments<Psn>& arguments, int64_t from, int each)
      : neuron((int64_t(blockIdx.x) % arguments.blocks * kBlock + threadIdx.x) * each),
        at(place_of(arguments.psn, neuron)),
        first(from + int64_t(blockIdx.x) / arguments.blocks * kSums),
        steps(int(arguments.psn.steps - first < kSums ? arguments.psn.steps - first : kSums)) {}
};

// Calls take(step, sum) with the sums of a group over rows of `in`: the inputs, or with `transposed` the gradients of h.
// A row is added to no step that has no weight for it, so that a NaN stays within the band.
template <int L, bool transposed, class T, class Take>
__device__ __forceinline__ void mix(const PsnInput& a, const Place& place, const T* in, int64_t stride,
                                    const Take& take) {
  const auto row_of = [&](int64_t t) { return transposed ? outputs_of_step<float>(a, t) : inputs_of_step<float>(a, t); };
  const PsnRow<float> head = row_of(place.first);
  const int64_t across = row_of(place.first + 1).first - head.first;
  const int64_t end = row_of(place.first + place.steps - 1).end;
  Lanes<L> sums[kSums] = {};
  Queue<T, L> queue;
  for (int64_t s = head.begin; s < end;) {
    const int count = int(end - s < kAhead ? end - s : kAhead);
    queue.template read<L, Use::again>(in + s * stride, stride, count, L);
#pragma unroll 1
    for (const int64_t until = s + count; s < until; ++s) {
      const Lanes<L> x = queue.take();
      const float* weight = &head(s);
      const int64_t distance = transposed ? s - place.first : place.first - s;
#pragma unroll
      for (int k = 0; k < kSums; ++k, weight += across) {
        const bool sees = a.band == 0 || uint64_t(transposed ? distance - k : distance + k) < uint64_t(a.band);
        if (k < place.steps && sees) sums[k] = fused(*weight, x, sums[k]);
      }
    }
  }
#pragma unroll 1
  for (int k = 0; k < place.steps; ++k) {
    take(place.first + k, sums[0]);
    // Moving the others up keeps this loop short and the sums in registers.
#pragma unroll
    for (int j = 1; j < kSums; ++j) sums[j - 1] = sums[j];
  }
}

// Calls take(step, h) for the steps of a group.
template <int L, class T, class Take>
__device__ __forceinline__ void each_membrane(const PsnInput& a, const Place& place, const Take& take) {
  mix<L, false>(a, place, static_cast<const T*>(a.x) + place.at, a.time_stride,
                [&](int64_t t, const Lanes<L>& sum) { take(t, sum + bias_of_step<float>(a, t)); });
}

template <class T, int L>
__global__ void __launch_bounds__(kBlock, kResident) forward(const Arguments<PsnForward> arguments) {
  const PsnForward& a = arguments.psn;
  const Place place(arguments, a.skipped, L);
  if (place.neuron >= a.neurons) return;
  each_membrane<L, T>(a, place, [&](int64_t t, const Lanes<L>& h) {
    const int64_t at = (t - a.skipped) * a.group + place.at;
    if (a.membranes) store<L>(static_cast<float*>(a.out) + at, h, L);
    else store<L>(static_cast<T*>(a.out) + at, select(h >= 0.0f, 1.0f, 0.0f), L);
  });
}

template <class T, int L>
__global__ void __launch_bounds__(kBlock, kResident) gradient_of_h(const Arguments<PsnBackward> arguments) {
  const PsnBackward& a = arguments.psn;
  const Place place(arguments, a.skipped, L);
  if (place.neuron >= a.neurons) return;
  each_membrane<L, T>(a, place, [&](int64_t t, const Lanes<L>& h) {
    const int64_t at = (t - a.skipped) * a.group + place.at;
    const Lanes<L> grad = widen(load<L, L>(static_cast<const T*>(a.grad) + at, L));
    const Lanes<L> slope = surrogate_slope(a.surrogate, arguments.alpha, arguments.height, arguments.outside, h);
    store<L>(static_cast<float*>(a.grad_h) + at, grad * slope, L);
  });
}

template <class T, int L>
__global__ void __launch_bounds__(kBlock, kResident) gradient_of_x(const Arguments<PsnBackward> arguments) {
  const PsnBackward& a = arguments.psn;
  const Place place(arguments, 0, L);
  if (place.neuron >= a.neurons) return;
  const float* const grad_h = static_cast<const float*>(a.grad_h) + place.at;
  mix<L, true>(a, place, grad_h - a.skipped * a.group, a.group, [&](int64_t t, const Lanes<L>& sum) {
    store<L>(static_cast<T*>(a.grad_x) + t * a.group + place.at, sum, L);
  });
}

// Launches a kernel whose threads have `each` neurons, for so many steps.
template <class Psn>
const char* launch_psn(void (*kernel)(Arguments<Psn>), Arguments<Psn> arguments, int each, int64_t steps,
                       cudaStream_t stream) {
  const int64_t neurons = int64_t(kBlock) * each, groups = (steps + kSums - 1) / kSums;
  arguments.blocks = (arguments.psn.neurons + neurons - 1) / neurons;
  return launch(kernel, arguments, groups * arguments.blocks * kBlock, 0, stream);
}

// Whether every row starts at a word boundary and consists of whole words.
bool allows_rows(const PsnInput& a) { return a.group % kWide == 0 && a.time_stride % kWide == 0; }

}  // namespace

const char* psn_forward(const PsnForward& a, void*, CUstream_st* stream) {
  return with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const bool aligned = a.membranes ? allows<float>(kWide, a.out) : allows<T>(kWide, a.out);
    const bool wide = allows_rows(a) && allows<T>(kWide, a.x) && aligned;
    return launch_psn(wide ? forward<T, kWide> : forward<T, 1>, {a}, wide ? kWide : 1, a.steps - a.skipped, stream);
  });
}

const char* psn_backward(const PsnBackward& a, void*, CUstream_st* stream) {
  return with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const bool wide = allows_rows(a) && allows<T>(kWide, a.x) && allows<T>(kWide, a.grad) &&
                      allows<T>(kWide, a.grad_x) && allows<float>(kWide, a.grad_h);
    const Arguments<PsnBackward> arguments = {a, 0, float(a.alpha), float(a.height), float(a.outside)};
    const int each = wide ? kWide : 1;
    const char* const error = launch_psn(wide ? gradient_of_h<T, kWide> : gradient_of_h<T, 1>, arguments, each,
                                         a.steps - a.skipped, stream);
    if (error || !a.grad_x) return error;
    return launch_psn(wide ? gradient_of_x<T, kWide> : gradient_of_x<T, 1>, arguments, each, a.steps, stream);
  });
}

}  // namespace cuda
}  // namespace deal
