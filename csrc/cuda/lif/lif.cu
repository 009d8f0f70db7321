// A thread has a few neighbouring neurons and runs through time with their state in registers. Branches on the kind of
// neuron are the same for all threads.
#include "../../types.h"

#include <initializer_list>

#include "../common/kernels.h"
#include "../common/launch.h"
#include "input.h"

namespace deal {
namespace cuda {
namespace {

constexpr int kSegment = 16;  // steps whose membrane potentials a backward thread holds
constexpr int kByte = 8;  // neurons of a thread with packed output

// Backward blocks per multiprocessor. With this bound the compiler does not spill registers.
constexpr int resident(bool norm, bool shares) { return !norm ? 4 : shares ? 2 : 3; }

template <class Lif>
struct Arguments {
  Lif lif;
  Numbers numbers;
  float* starts;
};

DEAL_INLINE int at_most(int most, int count) { return count < most ? count : most; }

template <int L>
__device__ __forceinline__ uint8_t bits_of(const Lanes<L>& s, int64_t left) {
  unsigned bits = 0;
#pragma unroll
  for (int i = 0; i < L; ++i)
    if (s.at[i] != 0.0f && i < left) bits |= 1u << i;
  return uint8_t(bits);
}

template <template <class, int> class Source, class T, int L, int W, Output wide_output>
__global__ void __launch_bounds__(kBlock) forward(const Arguments<LifForward> arguments) {
  const LifForward& a = arguments.lif;
  const int64_t first = first_of_thread(L);
  const int64_t left = a.neurons - first;
  if (left <= 0) return;
  const int64_t place = place_of(a, first);
  const Cell<Lanes<L>> cell = cell_of<L>(a, arguments.numbers, first);
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

// One value for each step of a segment, in this thread's column of shared memory.
template <int L>
struct Column {
  using Word = word_t<float, L>;
  Word* top;

  __device__ __forceinline__ void put(int step, const Lanes<L>& value) const {
    __builtin_memcpy(top + step * kBlock, &value, sizeof value);
  }
  __device__ __forceinline__ Lanes<L> get(int step) const {
    const Word word = top[step * kBlock];
    Lanes<L> value;
    __builtin_memcpy(&value, &word, sizeof value);
    return value;
  }
};

// What a backward thread keeps of a segment. The states that enter the steps follow from the membrane potentials before
// them, unless the neuron is reset at the next step.
template <int L>
struct Memory {
  Column<L> membranes, entered;
  bool keeps_entered;

  __device__ __forceinline__ Memory(const LifInput& a, int most)
      : membranes{static_cast<typename Column<L>::Word*>(block_memory()) + threadIdx.x},
        entered{membranes.top + most * kBlock},
        keeps_entered(L == 1 && a.neuron.reset > Reset::none) {}

  __device__ __forceinline__ Lanes<L> entered_at(int step, const Cell<Lanes<L>>& cell, const Lanes<L>& start) const {
    if (keeps_entered) return entered.get(step);
    if (step == 0) return start;
    const Lanes<L> before = membranes.get(step - 1);
    return cell.reset(before, before, cell.fire(before));
  }
};

// Computes the membrane potentials of `steps` steps. v is the state before them, and afterwards the state after them.
template <class Source, int L>
__device__ __forceinline__ void replay(const Cell<Lanes<L>>& cell, const Source& source, const LifInput& a,
                                       const Memory<L>& memory, Lanes<L>& v, int from, int steps, int64_t place) {
  constexpr Use use = Source::norm ? Use::again : Use::once;  // x is read again in the reverse loop
  typename Source::Currents currents;
  for (int k = 0; k < steps;) {
    const int end = k + at_most(kAhead, steps - k);
    source.template read<L, use>(currents, a, from + k, end - k, place, L);
#pragma unroll 1
    for (; k < end; ++k) {
      const Lanes<L> h = cell.charge(v, source.take(currents, a));
      memory.membranes.put(k, h);
      if (memory.keeps_entered) memory.entered.put(k, v);
      v = cell.reset(v, h, cell.fire(h));
    }
  }
}

// What a backward thread carries from a step to the previous one.
template <class T, int L>
struct Carried {
  Lanes<L> input_share, state_share;
  Queue<T, L> grad, x;
  Lanes<L> grad_v, grad_x, grad_decay, grad_threshold;
  Lanes<L> products;  // sum of grad_x * (x - mean)
};

// Reads the gradients, and with a norm also x, of the `steps` steps that end with `last`, in reverse order.
template <bool norm, class T, int L>
__device__ __forceinline__ void read_back(Carried<T, L>& carried, const LifBackward& a, int last, int steps,
                                          int64_t first, int64_t place) {
  const bool mean = a.output == Output::mean;
  const int64_t stride = mean ? 0 : a.group;
  const T* const grad = static_cast<const T*>(a.grad) + last * stride + (mean ? first : place);
  if (!is_record(a)) carried.grad.template read<L>(grad, -stride, steps, L);
  if (norm) carried.x.template read<L>(input<T>(a, last, place), -a.time_stride, steps, L);
}

// Reverses step k of a segment that begins with the step `from` and the state `start`.
template <bool shares, class Source, class T, int L>
__device__ __forceinline__ void reverse(const Cell<Lanes<L>>& cell, const Source& source, const LifBackward& a,
                                        const Memory<L>& memory, const Lanes<L>& start, Carried<T, L>& carried,
                                        int from, int k, int64_t place) {
  const int64_t at = int64_t(from + k) * a.group + place;
  const Lanes<L> h = memory.membranes.get(k);
  const Lanes<L> s = cell.fire(h);
  const Lanes<L> slope = L == 1 && a.slopes ? load<L, L>(a.slopes, at, L) : cell.spike_slope(h);
  Lanes<L> grad_s = {};
  if (!is_record(a)) grad_s = carried.grad.take();
  if (a.output == Output::mean) grad_s = grad_s / float(a.steps);
  grad_s = grad_s * float(cell.kind.scale);
  if (L == 1 && a.output == Output::states) carried.grad_v = carried.grad_v + load<L, L>(a.grad, at, L);
  Lanes<L> grad_h = cell.charge_gradient(h, s, slope, grad_s, carried.grad_v);
  if (L == 1 && a.output == Output::membranes) grad_h = grad_h + load<L, L>(a.grad, at, L);
  Lanes<L> entered = {};
  if (memory.keeps_entered || (shares && a.grad_decay)) entered = memory.entered_at(k, cell, start);
  if (shares && a.grad_threshold)
    carried.grad_threshold = carried.grad_threshold +
                             cell.threshold_gradient(entered, h, s, slope, grad_s, carried.grad_v, grad_h);
  if (shares && a.grad_decay) {
    typename Source::Currents currents;
    source.template read<L>(currents, a, from + k, 1, place, L);
    carried.grad_decay = carried.grad_decay + cell.decay_gradient(source.take(currents, a), entered, grad_h);
  }
  carried.grad_v = cell.state_gradient(entered, grad_h, carried.state_share);
  const Lanes<L> grad_x = grad_h * carried.input_share;
  if (Source::norm || a.constant) carried.grad_x = carried.grad_x + grad_x;
  if constexpr (Source::norm) carried.products = carried.products + grad_x * (carried.x.take() - source.mean);
  if (!a.constant) store<L>(static_cast<T*>(a.grad_x) + at, grad_x, L);
}

template <bool shares, bool norm, class T, int L>
__device__ __forceinline__ void write_sums(const LifBackward& a, const Carried<T, L>& sums, int64_t first) {
  const auto save = [first](void* result, const Lanes<L>& values) {
    if (result) store<L>(static_cast<float*>(result) + first, values, L);
  };
  save(a.grad_v0, sums.grad_v);
  if (shares) save(a.grad_decay, sums.grad_decay);
  if (shares) save(a.grad_threshold, sums.grad_threshold);
  if (norm) save(a.norm_sums, sums.grad_x);
  if (norm) save(static_cast<float*>(a.norm_sums) + a.neurons, sums.products);
  if (a.constant) store<L>(static_cast<T*>(a.grad_x) + first, sums.grad_x, L);
}

// Only x was kept from the forward pass: membrane potentials are recomputed, one segment at a time. If there are
// several segments, a first pass stores the state at the start of each but the last.
template <template <class, int> class Source, class T, int L, bool shares>
__global__ void __launch_bounds__(kBlock, resident(Source<T, L>::norm, shares))
    backward(const Arguments<LifBackward> arguments) {
  constexpr bool norm = Source<T, L>::norm;
  const LifBackward& a = arguments.lif;
  const int64_t first = first_of_thread(L);
  if (first >= a.neurons) return;
  const int64_t place = place_of(a, first);
  const Cell<Lanes<L>> cell = cell_of<L>(a, arguments.numbers, first);
  const int total = int(a.steps);
  const Memory<L> memory(a, at_most(kSegment, total));
  const int last = (total - 1) / kSegment;
  Carried<T, L> carried = {cell.input_share(), cell.state_share()};
  if (a.grad_v) carried.grad_v = load<L, L>(a.grad_v, first, L);
  Lanes<L> start = initial_state<L, L>(a, arguments.numbers, first, L);
#pragma unroll 1
  for (int visit = 0; visit <= 2 * last; ++visit) {
    const bool ahead = visit < last;
    const int segment = ahead ? visit : 2 * last - visit;
    const int from = segment * kSegment;
    const int steps = at_most(kSegment, total - from);
    float* const kept = arguments.starts + segment * a.neurons + first;
    if (ahead) store<L>(kept, start, L);
    else if (segment < last) start = load<L, L>(kept, 0, L);

    if (!ahead) read_back<norm>(carried, a, from + steps - 1, at_most(kAhead, steps), first, place);
    const Source<T, L> source(a, first);
    Lanes<L> v = start;
    replay(cell, source, a, memory, v, from, steps, place);
    if (ahead) {
      start = v;
      continue;
    }
    for (int end = steps; end > 0;) {
      const int begin = end - at_most(kAhead, end);
      if (end < steps) read_back<norm>(carried, a, from + end - 1, end - begin, first, place);
#pragma unroll 1
      for (; end > begin; --end) reverse<shares>(cell, source, a, memory, start, carried, from, end - 1, place);
    }
  }
  write_sums<shares, norm>(a, carried, first);
}

// Whether W neurons at a time may be moved: every row must start at a word boundary and consist of whole words.
template <class T>
bool allows_input(int W, const LifInput& a) {
  return a.group % W == 0 && a.time_stride % W == 0 && allows<T>(W, a.x) && allows<float>(W, a.v0) &&
         allows<T>(W, a.norm.shortcut);
}

template <class T>
bool allows_all(int W, const LifForward& a) {
  return is_usual(a.neuron) && !is_record(a) && allows_input<T>(W, a) && (a.output == Output::packed || allows<T>(W, a.out)) && allows<float>(W, a.v);
}

template <class T>
bool allows_all(int W, const LifBackward& a, const float* starts) {
  bool all = is_usual(a.neuron) && !is_record(a) && !a.slopes && allows_input<T>(W, a) && allows<T>(W, a.grad) &&
             allows<T>(W, a.grad_x);
  for (const void* state : {a.grad_v, static_cast<const void*>(a.grad_v0), static_cast<const void*>(a.grad_decay),
                            static_cast<const void*>(a.grad_threshold), static_cast<const void*>(a.norm_sums),
                            static_cast<const void*>(starts)})
    all = all && allows<float>(W, state);
  return all;
}

// Launches a kernel whose threads have `each` neurons and `bytes` bytes of shared memory.
template <class Lif>
const char* launch_lif(void (*kernel)(Arguments<Lif>), int each, int bytes, const Lif& a, float* starts,
                       cudaStream_t stream) {
  const Arguments<Lif> arguments = {a, numbers_of(a.neuron), starts};
  return launch(kernel, arguments, (a.neurons + each - 1) / each, bytes, stream);
}

template <template <class, int> class Source, class T>
const char* launch_forward(const LifForward& a, cudaStream_t stream) {
  const bool wide = allows_all<T>(kWide, a);
  const auto run = [&](void (*kernel)(Arguments<LifForward>), int each) {
    return launch_lif(kernel, each, 0, a, nullptr, stream);
  };
  if (a.output == Output::packed)
    return run(wide ? forward<Source, T, kByte, kWide, Output::packed> : forward<Source, T, kByte, 1, Output::packed>,
               kByte);
  // A thread with one neuron has registers to spare, so one kernel serves both outputs.
  if (!wide) return run(forward<Source, T, 1, 1, Output::spikes>, 1);
  return run(a.output == Output::mean ? forward<Source, T, kWide, kWide, Output::mean>
                                      : forward<Source, T, kWide, kWide, Output::spikes>,
             kWide);
}

template <template <class, int> class Source, class T, int L>
const char* launch_backward(const LifBackward& a, float* starts, cudaStream_t stream) {
  // A thread with one neuron has registers to spare, so one kernel serves both cases.
  const bool shares = L == 1 || a.grad_decay || a.grad_threshold;
  const auto kernel = shares ? backward<Source, T, L, true> : backward<Source, T, L, L == 1>;
  const int columns = L == 1 && a.neuron.reset > Reset::none ? 2 : 1;
  const int bytes = columns * at_most(kSegment, int(a.steps)) * L * int(sizeof(float));
  return launch_lif(kernel, L, bytes, a, starts, stream);
}

template <template <class, int> class Source, class T>
const char* launch_backward(const LifBackward& a, float* starts, cudaStream_t stream) {
  return allows_all<T>(kWide, a, starts) ? launch_backward<Source, T, kWide>(a, starts, stream)
                                         : launch_backward<Source, T, 1>(a, starts, stream);
}

}  // namespace

const char* lif_forward(const LifForward& a, void*, CUstream_st* stream) {
  return with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    return a.norm.mean.data ? launch_forward<Normalised, T>(a, stream) : launch_forward<Direct, T>(a, stream);
  });
}

// The states at the start of every segment, if there are several.
int64_t workspace_bytes(const LifBackward& a) {
  return a.steps > kSegment ? (a.steps + kSegment - 1) / kSegment * a.neurons * int64_t(sizeof(float)) : 0;
}

const char* lif_backward(const LifBackward& a, void* workspace, CUstream_st* stream) {
  float* const starts = static_cast<float*>(workspace);
  return with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    return a.norm.mean.data ? launch_backward<Normalised, T>(a, starts, stream)
                            : launch_backward<Direct, T>(a, starts, stream);
  });
}

}  // namespace cuda
}  // namespace deal
