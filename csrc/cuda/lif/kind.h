// What the compiler knows of a neuron's kind. The formulas are the same for all kinds; what is known is no branch.
#pragma once
#include "../../math/neuron.h"
#include "../common/memory.h"

namespace deal {
namespace cuda {
namespace {

// Nothing is known. Such a kernel has one neuron in a thread.
struct Any {
  static constexpr bool usual = false;
  static __device__ __forceinline__ Neuron of(Neuron n) { return n; }
};

// The neurons that do not need too many registers for a few of them in a thread.
struct Plain {
  static constexpr bool usual = false;

  static bool fits(const LifInput& a) {
    const Neuron& n = a.neuron;
    return n.reset <= Reset::none && n.carries && !n.own_amount && n.scale == 1 && n.surrogate != Surrogate::given &&
           !is_record(a);
  }

  static __device__ __forceinline__ Neuron of(Neuron n) {
    n.reset = n.reset == Reset::hard ? Reset::hard : n.reset == Reset::soft ? Reset::soft : Reset::none;
    n.carries = true;
    n.own_amount = false;
    n.scale = 1;
    return n;
  }
};

// The most frequent neurons, over a few steps: one decay, which multiplies, and one threshold for all neurons. The
// surrogate is that of a backward pass.
template <Charge charge, Reset reset, Surrogate surrogate = Surrogate::given>
struct Usual {
  static constexpr bool usual = true;

  static __device__ __forceinline__ Neuron of(Neuron n) {
    n = Plain::of(n);
    n.charge = charge;
    n.rate = true;
    n.fire = Fire::ge;
    n.reset = reset;
    n.surrogate = surrogate;
    return n;
  }
};

inline bool is_usual(const LifInput& a) {
  const Neuron& n = a.neuron;
  return Plain::fits(a) && a.steps <= kAhead && a.output == Output::spikes && a.time_stride != 0 &&
         a.decay.channels <= 1 && a.threshold.channels <= 1 && n.fire == Fire::ge &&
         (n.charge == Charge::beta || (n.charge == Charge::decay_input && n.rate)) &&
         (n.reset == Reset::hard || n.reset == Reset::soft);
}

inline bool is_usual(const LifBackward& a) {
  const Surrogate surrogate = a.neuron.surrogate;
  return is_usual(static_cast<const LifInput&>(a)) && !a.grad_decay && !a.grad_threshold &&
         (surrogate == Surrogate::sigmoid || surrogate == Surrogate::atan);
}

template <Charge charge, class Run>
const char* with_reset(const LifForward& a, const Run& run) {
  return a.neuron.reset == Reset::hard ? run(Usual<charge, Reset::hard>{}) : run(Usual<charge, Reset::soft>{});
}

template <Charge charge, Reset reset, class Run>
const char* with_surrogate(const LifBackward& a, const Run& run) {
  return a.neuron.surrogate == Surrogate::sigmoid ? run(Usual<charge, reset, Surrogate::sigmoid>{})
                                                  : run(Usual<charge, reset, Surrogate::atan>{});
}

template <Charge charge, class Run>
const char* with_reset(const LifBackward& a, const Run& run) {
  return a.neuron.reset == Reset::hard ? with_surrogate<charge, Reset::hard>(a, run)
                                       : with_surrogate<charge, Reset::soft>(a, run);
}

// Returns run(Usual<...>{}) with what is known of a usual neuron.
template <class Call, class Run>
const char* with_usual(const Call& a, const Run& run) {
  return a.neuron.charge == Charge::beta ? with_reset<Charge::beta>(a, run) : with_reset<Charge::decay_input>(a, run);
}

}  // namespace
}  // namespace cuda
}  // namespace deal
