// What the kernels of both directions are given, and how they are launched.
#pragma once
#include "../common/launch.h"
#include "input.h"

namespace deal {
namespace cuda {
namespace {

template <class T>
constexpr int kFew = 16 / int(sizeof(T));  // neurons of a thread in the kernels for few steps

template <class Lif>
struct Arguments {
  Lif lif;
  Numbers numbers;
  float* starts;
  float* parts;  // of the sums of a norm by channel; null: each neuron's contribution is a result
};

DEAL_INLINE int at_most(int most, int count) { return count < most ? count : most; }

// Whether W neurons at a time may be moved: every row must start at a word boundary and consist of whole words.
template <class T>
bool allows_input(int W, const LifInput& a) {
  return a.group % W == 0 && a.time_stride % W == 0 && allows<T>(W, a.x) && allows<float>(W, a.v0) &&
         allows<T>(W, a.norm.shortcut);
}

// Launches a kernel whose threads have `each` neurons and `bytes` bytes of shared memory.
template <class Lif>
const char* launch_lif(void (*kernel)(Arguments<Lif>), int each, int bytes, const Lif& a, cudaStream_t stream,
                       float* starts = nullptr, float* parts = nullptr) {
  const Arguments<Lif> arguments = {a, numbers_of(a.neuron), starts, parts};
  return launch(kernel, arguments, (a.neurons + each - 1) / each, bytes, stream);
}

}  // namespace
}  // namespace cuda
}  // namespace deal
