// Neurons are processed in tiles that fit into the first-level cache, a tile in segments of steps, and a segment in
// groups of four vectors (Quad), whose state stays in registers for all steps of the segment. The kind of neuron is the
// same for all vectors; the most expensive branches on it are taken outside of the loops.
#include "../../types.h"

#include "../common/kernels.h"
#include "input.h"
#include "tail.h"
#include "../common/parallel.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kBackwardTile = 128;  // small: computation and memory traffic alternate quickly
constexpr int64_t kElementsWorthAThread = 65536;

// Whether loops are compiled separately for each kind of neuron. Not for double, which only serves gradient checks, nor
// for x86 processors without AVX2.
#if defined(__x86_64__) && !defined(__AVX2__)
template <class S>
constexpr bool kCopies = false;
#else
template <class S>
constexpr bool kCopies = sizeof(S) == 4;
#endif

// Runs a group of neurons through a segment: charge, fire, reset. Calls take(step, h, s) with the membrane potential
// before the reset and the spikes.
template <class V, class Lanes, class Take>
DEAL_INLINE void run(const Cell<V>& cell, V& v, const Lanes& x, int steps, const Take& take) {
  for (int t = 0; t < steps; ++t) {
    const V h = cell.charge(v, x(t));
    const V s = cell.fire(h);
    v = cell.reset(h, s);
    take(t, h, s);
  }
}

// Calls next(kind), compiled separately for each kind of reset.
template <class S, class Next>
DEAL_INLINE void split_reset(const Neuron& neuron, const Next& next) {
  if constexpr (kCopies<S>) split<&Neuron::reset, Reset::hard, Reset::soft, Reset::none>(neuron, next);
  else next(neuron);
}

// Runs the tile through a segment from the states `start`. Calls take(first neuron, step, h, s) for every group.
template <class Source, class S, class Take>
DEAL_INLINE void run_tile(Tile<S>& tile, const S* start, const Source& source, int steps, const Take& take) {
  using V = Quad<S>;
  split_reset<S>(tile.neuron, [&](const Neuron& kind) DEAL_FLAT {
    tile.template each<V>([&](int i) DEAL_FLAT {
      V v = read<V>(start + i);
      run(tile.template cell<V>(kind, i), v, source.currents(i), steps,
          [&](int t, auto& h, auto& s) DEAL_FLAT { take(i, t, h, s); });
      store(tile.v.at + i, v);
    });
  });
}

template <class T, class Source, class S>
void write_spikes(const LifForward& a, Tile<S>& tile, const Source& source, Segment segment, bool streaming) {
  T* const out = static_cast<T*>(a.out) + segment.from * a.neurons + tile.first;
  run_tile(tile, tile.v.at, source, segment.steps,
           [&](int i, int t, auto&, auto& s) DEAL_FLAT { put(out + t * a.neurons + i, s, streaming); });
}

// Calls next(kind), compiled separately for each kind of reset and for the most common neuron.
template <class S, class Next>
DEAL_INLINE void split_usual(const Neuron& neuron, const Next& next) {
  const bool usual =
      neuron.charge == Charge::decay_input && neuron.fire == Fire::ge && neuron.multiply && neuron.rest == 0;
  split_reset<S>(neuron, [&](Neuron kind) DEAL_FLAT {
    if constexpr (kCopies<S>) {
      if (usual) {
        kind.charge = Charge::decay_input;
        kind.fire = Fire::ge;
        kind.multiply = true;
        kind.rest = 0;
        return next(kind);
      }
    }
    next(kind);
  });
}

template <class T, class Source, class S>
void write_mean(const LifForward& a, Tile<S>& tile, Row<S>& counts, const Source& source, Segment segment,
                bool streaming) {
  using V = Quad<S>;
  T* const out = static_cast<T*>(a.out) + tile.first;
  const bool last = segment.from + segment.steps == a.steps;
  split_usual<S>(tile.neuron, [&](const Neuron& kind) DEAL_FLAT {
    tile.template each<V>([&](int i) DEAL_FLAT {
      V v = read<V>(tile.v.at + i);
      V count = segment.from > 0 ? read<V>(counts.at + i) : V{};
      run(tile.template cell<V>(kind, i), v, source.currents(i), segment.steps,
          [&](int, auto&, auto& s) DEAL_FLAT { count = count + s; });
      store(tile.v.at + i, v);
      if (last) put(out + i, count / S(a.steps), streaming);
      else store(counts.at + i, count);
    });
  });
}

template <class Source, class S>
void write_bits(const LifForward& a, Tile<S>& tile, const Source& source, Segment segment) {
  const int64_t pitch = (a.neurons + 7) / 8;
  uint8_t* const out = static_cast<uint8_t*>(a.out) + segment.from * pitch + tile.first / 8;
  run_tile(tile, tile.v.at, source, segment.steps, [&](int i, int t, auto&, auto& s) DEAL_FLAT {
    const uint64_t bits = lane_bits(s);
    __builtin_memcpy(out + t * pitch + i / 8, &bits, kQuad<S> / 8);
  });
}

// The neurons from begin to end, a whole number of groups.
template <class T, template <class> class Source>
void forward_blocks(const LifForward& a, bool streaming, int64_t begin, int64_t end) {
  using S = compute_t<T>;
  Source<T> source(a, nullptr);
  Tile<S> tile;
  Row<S> counts;
  prepare(tile, a, end - begin);
  for (int64_t n = begin; n < end; n += kTile) {
    place(tile, a, n, end - n < kTile ? end - n : kTile);
    source.place(tile);
    for (int64_t i = 0; i < segments(a); ++i) {
      const Segment segment(a, i);
      source.aim(a, tile, segment);
      switch (a.output) {
        case Output::spikes: write_spikes<T>(a, tile, source, segment, streaming); break;
        case Output::mean: write_mean<T>(a, tile, counts, source, segment, streaming); break;
        case Output::packed: write_bits(a, tile, source, segment); break;
      }
    }
    if (a.v) __builtin_memcpy(static_cast<S*>(a.v) + n, tile.v.at, sizeof(S) * tile.neurons);
  }
  if (streaming) stream_fence();
}

template <class T, template <class> class Source>
void forward_tail(const LifForward& a, int64_t first) {
  using S = compute_t<T>;
  Tail<S> tail(first, a.neurons);
  LifForward part = tail.template inputs<T>(a);
  part.v = tail.template result<S>(a.v, 1, 0);
  if (a.output == Output::packed) part.out = tail.bits(a.out, a.steps, (a.neurons + 7) / 8);
  else part.out = tail.template result<T>(a.out, a.output == Output::mean ? 1 : a.steps, a.neurons);
  forward_blocks<T, Source>(part, false, 0, kQuad<S>);
  if (a.output == Output::packed) tail.clear_padding(static_cast<uint8_t*>(part.out), a.steps);
}

// Runs all whole groups on as many threads as are useful, then the remaining neurons.
template <class T, class Blocks, class Last>
DEAL_INLINE void each_neuron(const LifInput& a, int threads, const Blocks& blocks, const Last& last) {
  const int64_t whole = a.neurons / kQuad<compute_t<T>> * kQuad<compute_t<T>>;
  const int useful = useful_threads(a.neurons * a.steps, kElementsWorthAThread, threads);
  if (whole > 0) parallel_for(whole, kTile, useful, blocks);
  if (whole < a.neurons) last(whole);
}

template <class T, template <class> class Source>
void forward(const LifForward& a, int threads) {
  const int64_t rows = a.output == Output::spikes ? a.steps : 1;
  const bool streaming = a.output != Output::packed && streams(a.out, a.neurons * int64_t(sizeof(T)), rows);
  each_neuron<T>(a, threads,
                 [&](int64_t begin, int64_t end, int) { forward_blocks<T, Source>(a, streaming, begin, end); },
                 [&](int64_t first) { forward_tail<T, Source>(a, first); });
}

// What the backward pass keeps of a tile: rows for the steps of one segment, and what it carries over to the previous
// segment.
template <class S>
struct Tape {
  alignas(64) S h[kSegment][kBackwardTile];      // membrane potentials before the reset
  alignas(64) S slope[kSegment][kBackwardTile];  // ds/dh
  Row<S> grad_v, grad_x, grad_decay, grad_threshold;
  S* starts;  // states at the start of every segment

  S* start(int64_t segment) const { return starts + segment * kBackwardTile; }
  S* start(const Segment& segment) const { return start(segment.from / kSegment); }
};

// Recomputes the membrane potentials of a segment from its input and the state at its start.
template <class Source, class S>
void replay(Tile<S>& tile, Tape<S>& tape, const Source& source, Segment segment) {
  run_tile(tile, tape.start(segment), source, segment.steps,
           [&](int i, int t, auto& h, auto&) DEAL_FLAT { store(tape.h[t] + i, h); });
}

// Computes ds/dh at all steps of a segment, and prefetches the gradients that are needed next.
template <class T, class S>
void find_slopes(const LifBackward& a, const Tile<S>& tile, Tape<S>& tape, Segment segment) {
  using V = Quad<S>;
  const int64_t stride = a.output == Output::mean ? 0 : a.neurons;
  const T* const grad = static_cast<const T*>(a.grad) + segment.from * stride + tile.first;
  const auto pass = [&](const Neuron& kind) DEAL_FLAT {
    for (int t = segment.steps - 1; t >= 0; --t)
      tile.template each<V>([&](int i) DEAL_FLAT {
        prefetch<V>(grad + t * stride + i);
        store(tape.slope[t] + i, tile.template cell<V>(kind, i).spike_slope(read<V>(tape.h[t] + i)));
      });
  };
  if (!kCopies<S> || tile.neuron.fire == Fire::levels) return pass(tile.neuron);
  split<&Neuron::surrogate, Surrogate::sigmoid, Surrogate::atan, Surrogate::triangle, Surrogate::rectangle,
        Surrogate::fast_sigmoid, Surrogate::erf>(
      tile.neuron, [&](Neuron kind) DEAL_FLAT {
        kind.fire = Fire::ge;
        pass(kind);
      });
}

template <class S, class V>
DEAL_INLINE void add(S* p, const V& x) {
  store(p, read<V>(p) + x);
}

// The most common call: spikes of one level out, and no gradients of the parameters.
template <class S>
bool is_plain(const LifBackward& a) {
  return kCopies<S> && !a.constant && a.output != Output::mean && !a.grad_decay && !a.grad_threshold &&
         a.neuron.fire == Fire::ge;
}

// Propagates the gradient of the state back through a segment.
template <bool plain, class T, class Source, class S>
DEAL_INLINE void reverse(const LifBackward& a, const Neuron& kind, const Tile<S>& tile, Tape<S>& tape, Source& source,
                         Segment segment, bool streaming) {
  using V = Quad<S>;
  const bool mean = a.output == Output::mean;
  const S steps = S(a.steps);
  const T* const grad = static_cast<const T*>(a.grad) + (mean ? 0 : segment.from * a.neurons) + tile.first;
  T* const grad_x = static_cast<T*>(a.grad_x) + (a.constant ? 0 : segment.from * a.neurons) + tile.first;
  const S* const start = tape.start(segment);
  tile.template each<V>([&](int i) DEAL_FLAT {
    const Cell<V> cell = tile.template cell<V>(kind, i);
    const V input_share = cell.input_share(), state_share = cell.state_share();
    V grad_v = read<V>(tape.grad_v.at + i);
    auto gradient = source.gradient(i);
    for (int t = segment.steps - 1; t >= 0; --t) {
      const V h = read<V>(tape.h[t] + i);
      const V s = cell.fire(h);
      const V slope = read<V>(tape.slope[t] + i);
      const V grad_s = plain || !mean ? read<V>(grad + t * a.neurons + i) : read<V>(grad + i) / steps;
      const V grad_h = cell.charge_gradient(h, s, slope, grad_s, grad_v);
      const V grad_input = grad_h * input_share;
      if (plain || !a.constant) put(grad_x + t * a.neurons + i, grad_input, streaming);
      else add(tape.grad_x.at + i, grad_input);
      gradient.add(t, grad_input);
      if (!plain && a.grad_threshold)
        add(tape.grad_threshold.at + i, cell.threshold_gradient(h, s, slope, grad_s, grad_v));
      if (!plain && a.grad_decay) {
        const V before = read<V>(tape.h[t > 0 ? t - 1 : 0] + i);
        const V entered = t > 0 ? cell.reset(before, cell.fire(before)) : read<V>(start + i);
        add(tape.grad_decay.at + i, cell.decay_gradient(source.currents(i)(t), entered, grad_h));
      }
      grad_v = grad_h * state_share;
    }
    gradient.keep();
    store(tape.grad_v.at + i, grad_v);
  });
}

template <class T, class Source, class S>
void reverse_plain(const LifBackward& a, const Tile<S>& tile, Tape<S>& tape, Source& source, Segment segment,
                   bool streaming) {
  split_reset<S>(tile.neuron, [&](Neuron kind) DEAL_FLAT {
    kind.fire = Fire::ge;
    reverse<true, T>(a, kind, tile, tape, source, segment, streaming);
  });
}

template <class T, class Source, class S>
void reverse_segment(const LifBackward& a, const Tile<S>& tile, Tape<S>& tape, Source& source, Segment segment,
                     bool streaming) {
  if constexpr (kCopies<S>)
    if (is_plain<S>(a)) return reverse_plain<T>(a, tile, tape, source, segment, streaming);
  reverse<false, T>(a, tile.neuron, tile, tape, source, segment, streaming);
}

// Only x was kept from the forward pass: membrane potentials are recomputed segment by segment.
template <class T, class Source, class S>
void backward_tile(const LifBackward& a, Source& source, Tile<S>& tile, Tape<S>& tape, bool streaming) {
  const size_t row = sizeof(S) * tile.neurons;
  const int64_t last = segments(a) - 1;
  for (int64_t index = 0; index <= last; ++index) {
    __builtin_memcpy(tape.start(index), tile.v.at, row);
    const Segment segment(a, index);
    source.aim(a, tile, segment);
    if (index < last) replay(tile, tape, source, segment);
  }
  if (a.grad_v) __builtin_memcpy(tape.grad_v.at, static_cast<const S*>(a.grad_v) + tile.first, row);
  else fill(tape.grad_v.at, tile.neurons, S(0));
  if (!is_plain<S>(a)) {
    fill(tape.grad_x.at, tile.neurons, S(0));
    fill(tape.grad_decay.at, tile.neurons, S(0));
    fill(tape.grad_threshold.at, tile.neurons, S(0));
  }

  for (int64_t index = last; index >= 0; --index) {
    const Segment segment(a, index);
    source.aim(a, tile, segment);
    replay(tile, tape, source, segment);
    find_slopes<T>(a, tile, tape, segment);
    reverse_segment<T>(a, tile, tape, source, segment, streaming);
  }

  const auto save = [&](void* result, const Row<S>& values) {
    if (result) __builtin_memcpy(static_cast<S*>(result) + tile.first, values.at, row);
  };
  save(a.grad_v0, tape.grad_v);
  save(a.grad_decay, tape.grad_decay);
  save(a.grad_threshold, tape.grad_threshold);
  if (!a.constant) return;
  T* const sum = static_cast<T*>(a.grad_x) + tile.first;
  tile.template each<Quad<S>>([&](int i) DEAL_FLAT { put(sum + i, read<Quad<S>>(tape.grad_x.at + i), streaming); });
}

template <class T, template <class> class Source>
void backward_blocks(const LifBackward& a, bool streaming, int64_t begin, int64_t end, double* sums) {
  using S = compute_t<T>;
  Source<T> source(a, sums);
  Tile<S> tile;
  Tape<S> tape;
  const Buffer<S> starts(kBackwardTile * segments(a), Fill::none);
  tape.starts = starts.get();
  prepare(tile, a, end - begin);
  for (int64_t n = begin; n < end; n += kBackwardTile) {
    place(tile, a, n, end - n < kBackwardTile ? end - n : kBackwardTile);
    source.place(tile);
    backward_tile<T>(a, source, tile, tape, streaming);
  }
  source.finish();
  if (streaming) stream_fence();
}

template <class T, template <class> class Source>
void backward_tail(const LifBackward& a, int64_t first, double* sums) {
  using S = compute_t<T>;
  Tail<S> tail(first, a.neurons);
  LifBackward part = tail.template inputs<T>(a);
  part.grad = tail.template of<T>(a.grad, a.output == Output::mean ? 1 : a.steps, a.neurons);
  part.grad_v = tail.template of<S>(a.grad_v, 1, 0);
  part.grad_x = tail.template result<T>(a.grad_x, a.constant ? 1 : a.steps, a.neurons);
  part.grad_v0 = tail.template result<S>(a.grad_v0, 1, 0);
  part.grad_decay = tail.template result<S>(a.grad_decay, 1, 0);
  part.grad_threshold = tail.template result<S>(a.grad_threshold, 1, 0);
  backward_blocks<T, Source>(part, false, 0, kQuad<S>, tail.sums(a.norm, sums));
}

template <class T, template <class> class Source>
void backward(const LifBackward& a, int threads) {
  const bool streaming = streams(a.grad_x, a.neurons * int64_t(sizeof(T)), a.constant ? 1 : a.steps);
  ChannelSums sums(a.norm.mean.data ? 2 * a.norm.mean.channels : 0, threads + 1);
  each_neuron<T>(a, threads,
                 [&](int64_t begin, int64_t end, int thread) {
                   backward_blocks<T, Source>(a, streaming, begin, end, sums.of(thread));
                 },
                 [&](int64_t first) { backward_tail<T, Source>(a, first, sums.of(threads)); });
  sums.write(static_cast<compute_t<T>*>(a.norm_sums));
}

// Double is compiled for the baseline alone, which serves every instruction set.
template <class T>
void forward(const LifForward& a, int threads) {
  if constexpr (sizeof(T) == 8 && DEAL_VECTOR_BYTES > 16) baseline::lif_forward(a, threads);
  else a.norm.mean.data ? forward<T, Normalised>(a, threads) : forward<T, Direct>(a, threads);
}

template <class T>
void backward(const LifBackward& a, int threads) {
  if constexpr (sizeof(T) == 8 && DEAL_VECTOR_BYTES > 16) baseline::lif_backward(a, threads);
  else a.norm.mean.data ? backward<T, Normalised>(a, threads) : backward<T, Direct>(a, threads);
}

}  // namespace

void lif_forward(const LifForward& a, int threads) {
  switch (a.dtype) {
    case DType::float32: return forward<float>(a, threads);
    case DType::float16: return forward<Half>(a, threads);
    case DType::bfloat16: return forward<BFloat>(a, threads);
    case DType::float64: return forward<double>(a, threads);
  }
}

void lif_backward(const LifBackward& a, int threads) {
  switch (a.dtype) {
    case DType::float32: return backward<float>(a, threads);
    case DType::float16: return backward<Half>(a, threads);
    case DType::bfloat16: return backward<BFloat>(a, threads);
    case DType::float64: return backward<double>(a, threads);
  }
}

}  // namespace DEAL_ISA
}  // namespace deal
