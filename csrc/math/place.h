// Where neurons are in memory.
#pragma once
#include "platform.h"

namespace deal {

// Where the first step of a neuron is in tensors that have all steps.
template <class Call>
DEAL_INLINE int64_t place_of(const Call& a, int64_t neuron) {
  return a.group < a.neurons ? neuron + neuron / a.group * a.group * (a.steps - 1) : neuron;
}

}  // namespace deal
