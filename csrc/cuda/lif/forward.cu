// A thread has a few neighbouring neurons and runs through time with their state in registers. Branches on the kind of
// neuron are the same for all threads. Where the compiler knows the kind, up to kAhead steps are unrolled: all rows are
// read before the first of them is used.
#include "../common/kernels.h"
#include "call.h"

namespace deal {
namespace cuda {
namespace {

constexpr int kByte = 8;  // neurons of a thread with packed output

// Blocks per multiprocessor over few steps. With this bound the compiler does not spill registers.
constexpr int resident(bool norm, int lanes) { return norm && lanes > kWide ? 4 : 8; }

template <int L>
__device__ __forceinline__ uint8_t bits_of(const Lanes<L>& s, int64_t left) {
  unsigned bits = 0;
#pragma unroll
  for (int i = 0; i < L; ++i)
    if (s.at[i] != 0.0f && i < left) bits |= 1u << i;
  return uint8_t(bits);
}

template <template <class, int> class Source, class T, int L, int W, class Kind, Output wide_output>
__global__ void __launch_bounds__(kBlock) forward(const Arguments<LifForward> arguments) {
  const LifForward& a = arguments.lif;
  const int64_t first = first_of_thread(L);
  const int64_t left = a.neurons - first;
  if (left <= 0) return;
  const int64_t place = place_of(a, first);
  const Cell<Lanes<L>> cell = cell_of<Kind, L>(a, arguments.numbers, first);
  const Source<T, L> source(a, first);
  Lanes<L> v = initial_state<W, L>(a, arguments.numbers, first, left);
  Lanes<L> count = {};
  const int steps = int(a.steps);
  const Output output = L == 1 ? a.output : wide_output;
  typename Source<T, L>::Currents currents;
  for (int from = 0; from < steps;) {
    const int end = from + at_most(kAhead, steps - from);
    source.template read<W>(currents, a, from, end - from, place, left);
#pragma unroll 1
    for (; from < end; ++from) {
      const Lanes<L> h = cell.charge(v, source.take(currents, a));
      const Lanes<L> s = cell.fire(h);
      v = cell.reset(v, h, s);
      const int64_t at = from * a.group + place;
      if (output == Output::spikes) store<W>(static_cast<T*>(a.out) + at, s * float(cell.kind.scale), left);
      if (L == 1 && output == Output::states) store<W>(static_cast<float*>(a.out) + at, v, left);
      if (L == 1 && output == Output::membranes) store<W>(static_cast<float*>(a.out) + at, h, left);
      if (output == Output::mean) count = count + s;
      if (output == Output::packed)
        static_cast<uint8_t*>(a.out)[from * ((a.neurons + 7) / 8) + first / 8] = bits_of(s, left);
    }
  }
  if (output == Output::mean)
    store<W>(static_cast<T*>(a.out) + first, count / float(a.steps) * float(cell.kind.scale), left);
  if (a.v) store<W>(static_cast<float*>(a.v) + first, v, left);
}

template <template <class, int> class Source, class T, int L, class Kind>
__global__ void __launch_bounds__(kBlock, resident(Source<T, L>::norm, L))
    forward_few(const Arguments<LifForward> arguments) {
  const LifForward& a = arguments.lif;
  const int64_t first = first_of_thread(L);
  if (first >= a.neurons) return;
  const int64_t place = place_of(a, first);
  const int steps = int(a.steps);
  typename Source<T, L>::Currents currents;
  Source<T, L>::template read<L>(currents, a, 0, steps, place, L);
  const Source<T, L> source(a, first);
  const Cell<Lanes<L>> cell = cell_of<Kind, L>(a, arguments.numbers, first);
  Lanes<L> v = initial_state<L, L>(a, arguments.numbers, first, L);
  T* out = static_cast<T*>(a.out) + place;
#pragma unroll
  for (int k = 0; k < kAhead; ++k) {
    if (k == steps) break;
    const Lanes<L> h = cell.charge(v, source.at(currents, a, k));
    const Lanes<L> s = cell.fire(h);
    v = cell.reset(v, h, s);
    store<L>(out, s, L);
    out += a.group;
  }
  if (a.v) store<L>(static_cast<float*>(a.v) + first, v, L);
}

template <class T>
bool allows_all(int W, const LifForward& a) {
  return Plain::fits(a) && allows_input<T>(W, a) && (a.output == Output::packed || allows<T>(W, a.out)) &&
         allows<float>(W, a.v);
}

template <template <class, int> class Source, class T>
const char* launch_forward(const LifForward& a, cudaStream_t stream) {
  const auto run = [&](void (*kernel)(Arguments<LifForward>), int each) {
    return launch_lif(kernel, each, 0, a, stream);
  };
  if (is_usual(a) && allows_all<T>(kFew<T>, a))
    return with_usual(a, [&](auto kind) {
      return run(forward_few<Source, T, kFew<T>, decltype(kind)>, kFew<T>);
    });
  const bool wide = allows_all<T>(kWide, a);
  if (a.output == Output::packed)
    return run(wide ? forward<Source, T, kByte, kWide, Plain, Output::packed>
                    : forward<Source, T, kByte, 1, Any, Output::packed>,
               kByte);
  // A thread with one neuron has registers to spare, so one kernel serves both outputs.
  if (!wide) return run(forward<Source, T, 1, 1, Any, Output::spikes>, 1);
  return run(a.output == Output::mean ? forward<Source, T, kWide, kWide, Plain, Output::mean>
                                      : forward<Source, T, kWide, kWide, Plain, Output::spikes>,
             kWide);
}

}  // namespace

const char* lif_forward(const LifForward& a, void*, CUstream_st* stream) {
  return with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    return a.norm.mean.data ? launch_forward<Normalised, T>(a, stream) : launch_forward<Direct, T>(a, stream);
  });
}

}  // namespace cuda
}  // namespace deal
