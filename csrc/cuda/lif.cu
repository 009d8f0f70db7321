// One thread owns a few neighbouring neurons and walks through time with their state in registers.
// The branches of math/neuron.h on the kind of neuron are the same for all threads.
#include "../lif.h"

#include <initializer_list>

#include "kernels.h"
#include "lanes.h"
#include "launch.h"
#include "memory.h"

namespace deal {
namespace cuda {
namespace {

constexpr int kAhead = 4;     // steps whose input is read before the first of them is computed
constexpr int kWide = 4;      // neurons of a thread, where rows allow it, else 1
constexpr int kByte = 8;      // neurons of a thread that writes bits
constexpr int kResident = 4;  // backward blocks of a multiprocessor: told so, the compiler spills no registers

// The numbers of a neuron in float32, so that no thread has to convert them.
struct Numbers {
  float decay, threshold, rest, alpha, levels;
  bool inverted;  // decay is the reciprocal
};

template <class Lif>
struct Arguments {
  Lif lif;
  Numbers numbers;
  float* starts;
};

template <int L>
using LaneCell = Cell<Lanes<L>, Divisor<L>>;

template <int L>
__device__ __forceinline__ Divisor<L> parameter(const Parameter& p, float number, bool inverted, int64_t first) {
  const float* data = static_cast<const float*>(p.data);
  if (p.channels <= 1) return {filled<L>(data ? *data : number), inverted};
  Divisor<L> result = {{}, inverted};
  int64_t channel = first / p.inner;
  int64_t place = first - channel * p.inner;
  channel %= p.channels;
#pragma unroll
  for (int i = 0; i < L; ++i) {
    result.at[i] = data[channel];
    const bool next = ++place == p.inner;
    channel = next ? (channel + 1 == p.channels ? 0 : channel + 1) : channel;
    place = next ? 0 : place;
  }
  return result;
}

template <int L, class Lif>
__device__ __forceinline__ LaneCell<L> cell_of(const Arguments<Lif>& arguments, int64_t first) {
  const Lif& a = arguments.lif;
  const Numbers& numbers = arguments.numbers;
  Neuron kind = a.neuron;
  kind.multiply = false;  // the divisor knows
  kind.rest = numbers.rest;
  kind.alpha = numbers.alpha;
  kind.levels = numbers.levels;
  return {kind, parameter<L>(a.decay, numbers.decay, numbers.inverted, first),
          parameter<L>(a.threshold, numbers.threshold, false, first)};
}

template <int W, int L>
__device__ __forceinline__ Lanes<L> initial_state(const LifInput& a, const Numbers& numbers, int64_t first,
                                                  int64_t left) {
  return a.v0 ? load<W, L>(a.v0, first, left) : filled<L>(numbers.rest);
}

template <class T>
__device__ __forceinline__ const T* input(const LifInput& a, int64_t step, int64_t first) {
  return static_cast<const T*>(a.x) + step * a.time_stride + first;
}

// What the next few steps need, read at once. Taking one moves the others up, so that the loop over
// steps stays one copy of its long body.
template <class T, int L>
struct Queue {
  Stored<T, L> at[kAhead];

  template <int W>
  __device__ __forceinline__ void read(const T* p, int64_t stride, int count, int64_t left) {
#pragma unroll
    for (int k = 0; k < kAhead; ++k, p += stride)
      if (k < count) at[k] = load<W, L>(p, left);
  }

  __device__ __forceinline__ Lanes<L> take() {
    const Lanes<L> head = widen(at[0]);
#pragma unroll
    for (int k = 1; k < kAhead; ++k) at[k - 1] = at[k];
    return head;
  }
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

template <class T, int L, int W, Output output>
__global__ void __launch_bounds__(kBlock) forward(const Arguments<LifForward> arguments) {
  const LifForward& a = arguments.lif;
  const int64_t first = first_of_thread(L);
  const int64_t left = a.neurons - first;
  if (left <= 0) return;
  const LaneCell<L> cell = cell_of<L>(arguments, first);
  Lanes<L> v = initial_state<W, L>(a, arguments.numbers, first, left);
  Lanes<L> count = {};
  const int steps = int(a.steps);
  Queue<T, L> x;
  for (int from = 0; from < steps;) {
    const int end = from + at_most(kAhead, steps - from);
    x.template read<W>(input<T>(a, from, first), a.time_stride, end - from, left);
#pragma unroll 1
    for (; from < end; ++from) {
      const Lanes<L> h = cell.charge(v, x.take());
      const Lanes<L> s = cell.fire(h);
      v = cell.reset(h, s);
      if (output == Output::spikes) store<W>(static_cast<T*>(a.out) + from * a.neurons + first, s, left);
      if (output == Output::mean) count = count + s;
      if (output == Output::packed)
        static_cast<uint8_t*>(a.out)[from * ((a.neurons + 7) / 8) + first / 8] = bits_of(s, left);
    }
  }
  if (output == Output::mean) store<W>(static_cast<T*>(a.out) + first, count / float(a.steps), left);
  if (a.v) store<W>(static_cast<float*>(a.v) + first, v, left);
}

// The membranes of a segment, in this thread's column of the block's shared memory.
template <int L>
struct Membranes {
  using Word = word_t<float, L>;
  Word* column;

  __device__ __forceinline__ void put(int step, const Lanes<L>& h) const {
    __builtin_memcpy(column + step * kBlock, &h, sizeof h);
  }
  __device__ __forceinline__ Lanes<L> get(int step) const {
    const Word word = column[step * kBlock];
    Lanes<L> h;
    __builtin_memcpy(&h, &word, sizeof h);
    return h;
  }
};

// Computes the membranes of `steps` steps; v is the state before them, then after.
template <class T, int L>
__device__ __forceinline__ void replay(const LaneCell<L>& cell, const LifInput& a, const Membranes<L>& membranes,
                                       Lanes<L>& v, int from, int steps, int64_t first) {
  Queue<T, L> x;
  for (int k = 0; k < steps;) {
    const int end = k + at_most(kAhead, steps - k);
    x.template read<L>(input<T>(a, from + k, first), a.time_stride, end - k, L);
#pragma unroll 1
    for (; k < end; ++k) {
      const Lanes<L> h = cell.charge(v, x.take());
      membranes.put(k, h);
      v = cell.reset(h, cell.fire(h));
    }
  }
}

// What a backward thread carries from step to step, in reverse.
template <class T, int L>
struct Carried {
  Lanes<L> input_share, state_share;
  Queue<T, L> grad;
  Lanes<L> grad_v, grad_x, grad_decay, grad_threshold;
};

// Reads the gradients of the `steps` steps up to and with `last`, the latest first.
template <class T, int L>
__device__ __forceinline__ void read_gradients(Queue<T, L>& grad, const LifBackward& a, int last, int steps,
                                               int64_t first) {
  const int64_t stride = a.output == Output::mean ? 0 : a.neurons;
  grad.template read<L>(static_cast<const T*>(a.grad) + last * stride + first, -stride, steps, L);
}

// One step of a segment that begins with the step `from` and the state `start`.
template <bool shares, class T, int L>
__device__ __forceinline__ void reverse(const LaneCell<L>& cell, const LifBackward& a, const Membranes<L>& membranes,
                                        const Lanes<L>& start, Carried<T, L>& carried, int from, int k, int64_t first) {
  const Lanes<L> h = membranes.get(k);
  const Lanes<L> s = cell.fire(h);
  const Lanes<L> slope = cell.spike_slope(h);
  Lanes<L> grad_s = carried.grad.take();
  if (a.output == Output::mean) grad_s = grad_s / float(a.steps);
  const Lanes<L> grad_h = cell.charge_gradient(h, s, slope, grad_s, carried.grad_v);
  if (shares && a.grad_threshold)
    carried.grad_threshold = carried.grad_threshold + cell.threshold_gradient(h, s, slope, grad_s, carried.grad_v);
  if (shares && a.grad_decay) {
    Lanes<L> v = start;
    if (k > 0) {
      const Lanes<L> before = membranes.get(k - 1);
      v = cell.reset(before, cell.fire(before));
    }
    const Lanes<L> x = widen(load<L, L>(input<T>(a, from + k, first), L));
    carried.grad_decay = carried.grad_decay + cell.decay_gradient(x, v, grad_h);
  }
  carried.grad_v = grad_h * carried.state_share;
  const Lanes<L> grad_x = grad_h * carried.input_share;
  if (a.constant) carried.grad_x = carried.grad_x + grad_x;
  else store<L>(static_cast<T*>(a.grad_x) + int64_t(from + k) * a.neurons + first, grad_x, L);
}

template <bool shares, class T, int L>
__device__ __forceinline__ void write_sums(const LifBackward& a, const Carried<T, L>& sums, int64_t first) {
  const auto save = [first](void* result, const Lanes<L>& values) {
    if (result) store<L>(static_cast<float*>(result) + first, values, L);
  };
  save(a.grad_v0, sums.grad_v);
  if (shares) save(a.grad_decay, sums.grad_decay);
  if (shares) save(a.grad_threshold, sums.grad_threshold);
  if (a.constant) store<L>(static_cast<T*>(a.grad_x) + first, sums.grad_x, L);
}

// x is all that was kept. Its membranes are computed again, a segment at a time. Where there are
// several, a first pass writes down the state at the start of each but the last.
template <class T, int L, bool shares>
__global__ void __launch_bounds__(kBlock, kResident) backward(const Arguments<LifBackward> arguments) {
  const LifBackward& a = arguments.lif;
  const int64_t first = first_of_thread(L);
  if (first >= a.neurons) return;
  const LaneCell<L> cell = cell_of<L>(arguments, first);
  const Membranes<L> membranes = {static_cast<word_t<float, L>*>(block_memory()) + threadIdx.x};
  const int total = int(a.steps);
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

    if (!ahead) read_gradients(carried.grad, a, from + steps - 1, at_most(kAhead, steps), first);
    Lanes<L> v = start;
    replay<T>(cell, a, membranes, v, from, steps, first);
    if (ahead) {
      start = v;
      continue;
    }
    for (int end = steps; end > 0;) {
      const int begin = end - at_most(kAhead, end);
      if (end < steps) read_gradients(carried.grad, a, from + end - 1, end - begin, first);
#pragma unroll 1
      for (; end > begin; --end) reverse<shares>(cell, a, membranes, start, carried, from, end - 1, first);
    }
  }
  write_sums<shares>(a, carried, first);
}

Numbers numbers_of(const Neuron& n) {
  const double decay = n.multiply ? 1 / n.decay : n.decay;
  return {float(decay), float(n.threshold), float(n.rest), float(n.alpha), float(n.levels), n.multiply};
}

// Whether W neurons at a time may be moved: every row must start on a word and hold whole words.
template <class T>
bool allows_input(int W, const LifInput& a) {
  return a.neurons % W == 0 && a.time_stride % W == 0 && allows<T>(W, a.x) && allows<float>(W, a.v0);
}

template <class T>
bool allows_all(int W, const LifForward& a) {
  return allows_input<T>(W, a) && (a.output == Output::packed || allows<T>(W, a.out)) && allows<float>(W, a.v);
}

template <class T>
bool allows_all(int W, const LifBackward& a, const float* starts) {
  bool all = allows_input<T>(W, a) && allows<T>(W, a.grad) && allows<T>(W, a.grad_x);
  for (const void* state : {a.grad_v, static_cast<const void*>(a.grad_v0), static_cast<const void*>(a.grad_decay),
                            static_cast<const void*>(a.grad_threshold), static_cast<const void*>(starts)})
    all = all && allows<float>(W, state);
  return all;
}

// Launches a kernel whose threads own `each` neurons and so many bytes of shared memory.
template <class Lif>
const char* launch_lif(void (*kernel)(Arguments<Lif>), int each, int bytes, const Lif& a, float* starts, int device,
                       cudaStream_t stream) {
  const Arguments<Lif> arguments = {a, numbers_of(a.neuron), starts};
  return launch(kernel, arguments, (a.neurons + each - 1) / each, bytes, device, stream);
}

template <class T>
const char* launch_forward(const LifForward& a, int device, cudaStream_t stream) {
  const bool wide = allows_all<T>(kWide, a);
  const auto run = [&](void (*kernel)(Arguments<LifForward>), int each) {
    return launch_lif(kernel, each, 0, a, nullptr, device, stream);
  };
  switch (a.output) {
    case Output::spikes:
      return wide ? run(forward<T, kWide, kWide, Output::spikes>, kWide) : run(forward<T, 1, 1, Output::spikes>, 1);
    case Output::mean:
      return wide ? run(forward<T, kWide, kWide, Output::mean>, kWide) : run(forward<T, 1, 1, Output::mean>, 1);
    default:
      return run(wide ? forward<T, kByte, kWide, Output::packed> : forward<T, kByte, 1, Output::packed>, kByte);
  }
}

template <class T, int L>
const char* launch_backward(const LifBackward& a, float* starts, int device, cudaStream_t stream) {
  // A thread of one neuron has registers to spare, so one kernel serves it with shares and without.
  const bool shares = L == 1 || a.grad_decay || a.grad_threshold;
  const auto kernel = shares ? backward<T, L, true> : backward<T, L, L == 1>;
  const int membranes = at_most(kSegment, int(a.steps)) * L * int(sizeof(float));
  return launch_lif(kernel, L, membranes, a, starts, device, stream);
}

template <class T>
const char* launch_backward(const LifBackward& a, float* starts, int device, cudaStream_t stream) {
  return allows_all<T>(kWide, a, starts) ? launch_backward<T, kWide>(a, starts, device, stream)
                                         : launch_backward<T, 1>(a, starts, device, stream);
}

constexpr const char* kNoFloat64 = "the CUDA kernels have no float64";

}  // namespace

const char* lif_forward(const LifForward& a, int device, CUstream_st* stream) {
  switch (a.dtype) {
    case DType::float32: return launch_forward<float>(a, device, stream);
    case DType::float16: return launch_forward<__half>(a, device, stream);
    case DType::bfloat16: return launch_forward<__nv_bfloat16>(a, device, stream);
    default: return kNoFloat64;
  }
}

const char* lif_backward(const LifBackward& a, float* starts, int device, CUstream_st* stream) {
  switch (a.dtype) {
    case DType::float32: return launch_backward<float>(a, starts, device, stream);
    case DType::float16: return launch_backward<__half>(a, starts, device, stream);
    case DType::bfloat16: return launch_backward<__nv_bfloat16>(a, starts, device, stream);
    default: return kNoFloat64;
  }
}

}  // namespace cuda
}  // namespace deal
