// Only x was kept from the forward pass: membrane potentials are recomputed. Over few steps the threads hold them in
// registers, otherwise in shared memory, one segment of the steps at a time. If there are several segments, a first
// pass stores the state at the start of each but the last.
#include <initializer_list>

#include "../common/kernels.h"
#include "call.h"
#include "norm_sums.h"

namespace deal {
namespace cuda {
namespace {

constexpr int kSegment = 16;  // steps whose membrane potentials a thread holds
constexpr int64_t kLeastPlane = 16;  // neurons of a channel side by side from which on a block sums them

// Blocks per multiprocessor. With this bound the compiler does not spill registers.
constexpr int resident(bool norm, bool shares) { return !norm ? 4 : shares ? 2 : 3; }
constexpr int resident_few(bool norm, int lanes) { return lanes > kWide ? (norm ? 4 : 5) : norm ? 5 : 8; }

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
template <int L>
struct Carried {
  Lanes<L> input_share, state_share;
  Lanes<L> grad_v, grad_x, grad_decay, grad_threshold;
  Lanes<L> products;  // sum of grad_x * (x - mean)
};

// Reverses a step, given its membrane potential, the gradient of its spike, its x if there is a norm, and the state
// that enters it.
template <bool shares, class Kind, class Source, class T, int L, class Entered>
__device__ __forceinline__ void reverse(const Cell<Lanes<L>>& cell, const Source& source, const LifBackward& a,
                                        Carried<L>& carried, const Lanes<L>& h, const Lanes<L>& grad_s,
                                        const Lanes<L>& x, const Entered& state_before, int step, int64_t at,
                                        int64_t place) {
  const bool constant = !Kind::usual && a.constant;
  const Lanes<L> s = cell.fire(h);
  const Lanes<L> slope = L == 1 && a.slopes ? load<L, L>(a.slopes, at, L) : cell.spike_slope(h);
  if (L == 1 && a.output == Output::states) carried.grad_v = carried.grad_v + load<L, L>(a.grad, at, L);
  Lanes<L> grad_h = cell.charge_gradient(h, s, slope, grad_s, carried.grad_v);
  if (L == 1 && a.output == Output::membranes) grad_h = grad_h + load<L, L>(a.grad, at, L);
  const Lanes<L> entered = state_before();
  if (shares && a.grad_threshold)
    carried.grad_threshold = carried.grad_threshold +
                             cell.threshold_gradient(entered, h, s, slope, grad_s, carried.grad_v, grad_h);
  if (shares && a.grad_decay) {
    typename Source::Currents currents;
    Source::template read<L>(currents, a, step, 1, place, L);
    carried.grad_decay = carried.grad_decay + cell.decay_gradient(source.take(currents, a), entered, grad_h);
  }
  carried.grad_v = cell.state_gradient(entered, grad_h, carried.state_share);
  const Lanes<L> grad_x = grad_h * carried.input_share;
  if (Source::norm || constant) carried.grad_x = carried.grad_x + grad_x;
  if constexpr (Source::norm) carried.products = carried.products + grad_x * (x - source.mean);
  if (!constant) store<L>(static_cast<T*>(a.grad_x) + at, grad_x, L);
}

// The gradients, and with a norm also x, of steps in reverse order.
template <class T, int L>
struct RowsBack {
  Queue<T, L> grad, x;
};

template <bool norm, class T, int L>
__device__ __forceinline__ void read_back(RowsBack<T, L>& rows, const LifBackward& a, int last, int steps,
                                          int64_t first, int64_t place) {
  const bool mean = a.output == Output::mean;
  const int64_t stride = mean ? 0 : a.group;
  const T* const grad = static_cast<const T*>(a.grad) + last * stride + (mean ? first : place);
  if (!is_record(a)) rows.grad.template read<L>(grad, -stride, steps, L);
  if (norm) rows.x.template read<L>(input<T>(a, last, place), -a.time_stride, steps, L);
}

// Reverses the steps [begin, end) of a segment that begins with the step `from` and the state `start`.
template <bool shares, class Kind, class Source, class T, int L>
__device__ __forceinline__ void reverse(const Cell<Lanes<L>>& cell, const Source& source, const LifBackward& a,
                                        const Memory<L>& memory, const Lanes<L>& start, RowsBack<T, L>& rows,
                                        Carried<L>& carried, int from, int begin, int end, int64_t place) {
#pragma unroll 1
  for (int k = end - 1; k >= begin; --k) {
    Lanes<L> grad_s = {}, x = {};
    if (!is_record(a)) grad_s = rows.grad.take();
    if (a.output == Output::mean) grad_s = grad_s / float(a.steps);
    if (Source::norm) x = rows.x.take();
    const auto state_before = [&] {
      return memory.keeps_entered || (shares && a.grad_decay) ? memory.entered_at(k, cell, start) : Lanes<L>{};
    };
    reverse<shares, Kind, Source, T>(cell, source, a, carried, memory.membranes.get(k),
                                     grad_s * float(cell.kind.scale), x, state_before, from + k,
                                     int64_t(from + k) * a.group + place, place);
  }
}

template <bool shares, bool norm, class Kind, class T, int L>
__device__ __forceinline__ void write_sums(const Arguments<LifBackward>& arguments, const Carried<L>& sums,
                                           int64_t first) {
  const LifBackward& a = arguments.lif;
  const auto save = [first](void* result, const Lanes<L>& values) {
    if (result) store<L>(static_cast<float*>(result) + first, values, L);
  };
  save(a.grad_v0, sums.grad_v);
  if (shares) save(a.grad_decay, sums.grad_decay);
  if (shares) save(a.grad_threshold, sums.grad_threshold);
  if (norm && !arguments.parts) save(a.norm_sums, sums.grad_x);
  if (norm && !arguments.parts) save(static_cast<float*>(a.norm_sums) + a.neurons, sums.products);
  if (!Kind::usual && a.constant) store<L>(static_cast<T*>(a.grad_x) + first, sums.grad_x, L);
}

// Runs a backward thread: run(first neuron) returns what it carried through all steps.
template <bool norm, int L, class Run>
__device__ __forceinline__ void run_thread(const Arguments<LifBackward>& arguments, const Run& run) {
  const LifBackward& a = arguments.lif;
  const int64_t first = first_of_thread(L);
  Carried<L> carried = {};
  if (first < a.neurons) carried = run(first);
  if (norm && arguments.parts)
    leave_parts<L>(arguments.parts, a.neurons, a.norm.mean.inner, first, carried.grad_x, carried.products);
}

template <template <class, int> class Source, class T, int L, class Kind, bool shares>
__device__ __forceinline__ Carried<L> gradients(const Arguments<LifBackward>& arguments, int64_t first) {
  constexpr bool norm = Source<T, L>::norm;
  const LifBackward& a = arguments.lif;
  const int64_t place = place_of(a, first);
  const Cell<Lanes<L>> cell = cell_of<Kind, L>(a, arguments.numbers, first);
  const int total = int(a.steps);
  const Memory<L> memory(a, at_most(kSegment, total));
  const int last = (total - 1) / kSegment;
  Carried<L> carried = {cell.input_share(), cell.state_share()};
  RowsBack<T, L> rows;
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

    if (!ahead) read_back<norm>(rows, a, from + steps - 1, at_most(kAhead, steps), first, place);
    const Source<T, L> source(a, first);
    Lanes<L> v = start;
    replay(cell, source, a, memory, v, from, steps, place);
    if (ahead) {
      start = v;
      continue;
    }
    for (int end = steps; end > 0;) {
      const int begin = end - at_most(kAhead, end);
      if (end < steps) read_back<norm>(rows, a, from + end - 1, end - begin, first, place);
      reverse<shares, Kind>(cell, source, a, memory, start, rows, carried, from, begin, end, place);
      end = begin;
    }
  }
  write_sums<shares, norm, Kind, T>(arguments, carried, first);
  return carried;
}

template <template <class, int> class Source, class T, int L, class Kind, bool shares>
__global__ void __launch_bounds__(kBlock, resident(Source<T, L>::norm, shares))
    backward(const Arguments<LifBackward> arguments) {
  run_thread<Source<T, L>::norm, L>(arguments, [&](int64_t first) {
    return gradients<Source, T, L, Kind, shares>(arguments, first);
  });
}

template <template <class, int> class Source, class T, int L, class Kind>
__device__ __forceinline__ Carried<L> gradients_few(const Arguments<LifBackward>& arguments, int64_t first) {
  const LifBackward& a = arguments.lif;
  const int64_t place = place_of(a, first);
  const int steps = int(a.steps);
  typename Source<T, L>::Currents currents;
  Queue<T, L> grads;
  Source<T, L>::template read<L>(currents, a, 0, steps, place, L);
  grads.template read<L>(static_cast<const T*>(a.grad) + place, a.group, steps, L);
  const Source<T, L> source(a, first);
  const Cell<Lanes<L>> cell = cell_of<Kind, L>(a, arguments.numbers, first);
  Lanes<L> v = initial_state<L, L>(a, arguments.numbers, first, L), h[kAhead];
#pragma unroll
  for (int k = 0; k < kAhead; ++k) {
    if (k == steps) break;
    h[k] = cell.charge(v, source.at(currents, a, k));
    v = cell.reset(v, h[k], cell.fire(h[k]));
  }
  Carried<L> carried = {cell.input_share(), cell.state_share()};
  if (a.grad_v) carried.grad_v = load<L, L>(a.grad_v, first, L);
#pragma unroll
  for (int k = kAhead - 1; k >= 0; --k)
    if (k < steps)
      reverse<false, Kind, Source<T, L>, T>(cell, source, a, carried, h[k], widen(grads.at[k]),
                                            source.x(currents, k), [] { return Lanes<L>{}; }, k,
                                            k * a.group + place, place);
  write_sums<false, Source<T, L>::norm, Kind, T>(arguments, carried, first);
  return carried;
}

template <template <class, int> class Source, class T, int L, class Kind>
__global__ void __launch_bounds__(kBlock, resident_few(Source<T, L>::norm, L))
    backward_few(const Arguments<LifBackward> arguments) {
  run_thread<Source<T, L>::norm, L>(arguments, [&](int64_t first) {
    return gradients_few<Source, T, L, Kind>(arguments, first);
  });
}

template <class T>
bool allows_all(int W, const LifBackward& a, const float* starts) {
  bool all = Plain::fits(a) && !a.slopes && allows_input<T>(W, a) && allows<T>(W, a.grad) && allows<T>(W, a.grad_x);
  for (const void* state : {a.grad_v, static_cast<const void*>(a.grad_v0), static_cast<const void*>(a.grad_decay),
                            static_cast<const void*>(a.grad_threshold), static_cast<const void*>(a.norm_sums),
                            static_cast<const void*>(starts)})
    all = all && allows<float>(W, state);
  return all;
}

// The states at the start of every segment, if there are several.
int64_t starts_of(const LifBackward& a) {
  return a.steps > kSegment ? (a.steps + kSegment - 1) / kSegment * a.neurons : 0;
}

// Whether the sums of a norm are put together by channel.
bool adds_up(const LifBackward& a) { return a.norm.mean.data && sums_by_channel(a.norm.mean.inner); }

// Launches a backward kernel, and where it leaves parts of the sums of a norm, the kernel that adds them up.
const char* launch_gradients(void (*kernel)(Arguments<LifBackward>), int each, int bytes, const LifBackward& a,
                             float* workspace, cudaStream_t stream) {
  if (!adds_up(a)) return launch_lif(kernel, each, bytes, a, stream, workspace);
  float* const parts = workspace + starts_of(a);
  const char* const error = launch_lif(kernel, each, bytes > 0 ? bytes : kTopsBytes, a, stream, workspace, parts);
  return error ? error : launch_add_parts(a, parts, each, stream);
}

template <template <class, int> class Source, class T, int L, class Kind>
const char* launch_backward(const LifBackward& a, float* workspace, cudaStream_t stream) {
  // A thread with one neuron has registers to spare, so one kernel serves both cases.
  const bool shares = L == 1 || a.grad_decay || a.grad_threshold;
  const auto kernel = shares ? backward<Source, T, L, Kind, true> : backward<Source, T, L, Kind, L == 1>;
  const int columns = L == 1 && a.neuron.reset > Reset::none ? 2 : 1;
  const int bytes = columns * at_most(kSegment, int(a.steps)) * L * int(sizeof(float));
  return launch_gradients(kernel, L, bytes, a, workspace, stream);
}

template <template <class, int> class Source, class T>
const char* launch_backward(const LifBackward& a, float* workspace, cudaStream_t stream) {
  // Whether the neurons of a thread are of one plane, as the sums by channel need it.
  const bool one_plane = !adds_up(a) || a.norm.mean.inner % kFew<T> == 0;
  if (one_plane && is_usual(a) && allows_all<T>(kFew<T>, a, workspace))
    return with_usual(a, [&](auto kind) {
      return launch_gradients(backward_few<Source, T, kFew<T>, decltype(kind)>, kFew<T>, 0, a, workspace, stream);
    });
  return allows_all<T>(kWide, a, workspace) ? launch_backward<Source, T, kWide, Plain>(a, workspace, stream)
                                         : launch_backward<Source, T, 1, Any>(a, workspace, stream);
}

}  // namespace

bool sums_by_channel(int64_t inner) { return inner >= kLeastPlane && inner % kWide == 0; }

int64_t workspace_bytes(const LifBackward& a) {
  const int64_t parts = adds_up(a) ? 2 * parts_of(a.neurons, a.norm.mean.inner, 1) : 0;
  return (starts_of(a) + parts) * int64_t(sizeof(float));
}

const char* lif_backward(const LifBackward& a, void* memory, CUstream_st* stream) {
  float* const workspace = static_cast<float*>(memory);
  return with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    return a.norm.mean.data ? launch_backward<Normalised, T>(a, workspace, stream)
                            : launch_backward<Direct, T>(a, workspace, stream);
  });
}

}  // namespace cuda
}  // namespace deal
