// Only x was kept from the forward pass. A tile goes through its segments twice: from first to last to find the states at
// their starts, and from last to first to recompute the membrane potentials and to propagate the gradients.
#include "../../types.h"

#include "../common/dtype.h"
#include "../common/kernels.h"
#include "run.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kBackwardTile = 128;  // small: computation and memory traffic alternate quickly

// What the backward pass keeps of a tile: rows for the steps of one segment, and what it carries over to the previous
// segment.
template <class S>
struct Tape {
  alignas(64) S h[kSegment][kBackwardTile];        // membrane potentials before the reset
  alignas(64) S slope[kSegment][kBackwardTile];    // ds/dh
  alignas(64) S entered[kSegment][kBackwardTile];  // states before the step, where they are needed
  Row<S> grad_v, grad_x, grad_decay, grad_threshold;
  S* starts;  // states at the start of every segment

  S* start(int64_t segment) const { return starts + segment * kBackwardTile; }
  S* start(const Segment& segment) const { return start(segment.from / kSegment); }
};

// Recomputes the membrane potentials of a segment from its input and the state at its start.
template <class Source, class S>
void replay(const LifBackward& a, Tile<S>& tile, Tape<S>& tape, const Source& source, Segment segment) {
  const bool entered = needs_entered(a);
  run_tile(tile, tape.start(segment), source, segment.steps, [&](int i, int t, const auto& now) DEAL_FLAT {
    store(tape.h[t] + i, now.h);
    if (entered) store(tape.entered[t] + i, now.entered);
  });
}

// Copies ds/dh of a segment, where it is given.
template <class S>
void copy_slopes(const LifBackward& a, const Tile<S>& tile, Tape<S>& tape, Segment segment) {
  const S* const slopes = static_cast<const S*>(a.slopes) + segment.from * a.group + tile.place;
  for (int t = 0; t < segment.steps; ++t)
    __builtin_memcpy(tape.slope[t], slopes + t * a.group, sizeof(S) * tile.neurons);
}

// Computes ds/dh at all steps of a segment, and prefetches the gradients that are needed next.
template <class T, class S>
void find_slopes(const LifBackward& a, const Tile<S>& tile, Tape<S>& tape, Segment segment) {
  using V = Quad<S>;
  if (a.slopes) return copy_slopes(a, tile, tape, segment);
  const bool spikes = a.output == Output::spikes;
  const int64_t stride = spikes ? a.group : 0;
  const T* const grad = static_cast<const T*>(a.grad) + segment.from * stride + (spikes ? tile.place : tile.first);
  const auto pass = [&](const Neuron& kind) DEAL_FLAT {
    for (int t = segment.steps - 1; t >= 0; --t)
      tile.template each<V>([&](int i) DEAL_FLAT {
        prefetch<V>(grad + t * stride + i);
        store(tape.slope[t] + i, tile.template cell<V>(kind, i).spike_slope(read<V>(tape.h[t] + i)));
      });
  };
  if (!kCopies<S> || tile.neuron.fire == Fire::levels) return pass(tile.neuron);
  split<&Neuron::surrogate, Surrogate::sigmoid, Surrogate::atan, Surrogate::triangle, Surrogate::rectangle,
        Surrogate::fast_sigmoid, Surrogate::erf, Surrogate::exponential, Surrogate::sides, Surrogate::window>(
      tile.neuron, [&](Neuron kind) DEAL_FLAT {
        kind.fire = Fire::ge;
        pass(kind);
      });
}

template <class S, class V>
DEAL_INLINE void add(S* p, const V& x) {
  store(p, read<V>(p) + x);
}

// The most common call: spikes of one level out, no gradients of the parameters, and one of the usual resets.
template <class S>
bool is_plain(const LifBackward& a) {
  return kCopies<S> && !a.constant && a.output == Output::spikes && !a.grad_decay && !a.grad_threshold &&
         a.neuron.fire == Fire::ge && a.neuron.reset != Reset::next_hard && a.neuron.reset != Reset::twice_soft;
}

// The gradients of the outputs of neighbouring neurons, by what they belong to.
template <class V>
struct OutputGradients {
  V of_spike, of_state, of_membrane;
};

// Reads the gradients of the output at a step of a segment.
template <bool plain, class V, class T, class S>
DEAL_INLINE OutputGradients<V> output_gradients(const LifBackward& a, const Tile<S>& tile, Segment segment, int t,
                                                int i) {
  const int64_t at = (segment.from + t) * a.group + tile.place + i;
  const T* const grad = static_cast<const T*>(a.grad);
  const S scale = S(a.neuron.scale);
  if (plain || a.output == Output::spikes) return {read<V>(grad + at) * scale, V{}, V{}};
  if (a.output == Output::mean) return {read<V>(grad + tile.first + i) / S(a.steps) * scale, V{}, V{}};
  const V record = read<V>(static_cast<const S*>(a.grad) + at);
  if (a.output == Output::states) return {V{}, record, V{}};
  return {V{}, V{}, record};
}

// Propagates the gradient of the state back through a segment.
template <bool plain, class T, class Source, class S>
DEAL_INLINE void reverse(const LifBackward& a, const Neuron& kind, const Tile<S>& tile, Tape<S>& tape, Source& source,
                         Segment segment, bool streaming) {
  using V = Quad<S>;
  T* const grad_x = static_cast<T*>(a.grad_x) + (a.constant ? 0 : segment.from * a.group) + tile.place;
  tile.template each<V>([&](int i) DEAL_FLAT {
    const Cell<V> cell = tile.template cell<V>(kind, i);
    const V input_share = cell.input_share(), state_share = cell.state_share();
    V grad_v = read<V>(tape.grad_v.at + i);
    auto gradient = source.gradient(i);
    for (int t = segment.steps - 1; t >= 0; --t) {
      const V h = read<V>(tape.h[t] + i);
      const V s = cell.fire(h);
      const V slope = read<V>(tape.slope[t] + i);
      const auto grad = output_gradients<plain, V, T>(a, tile, segment, t, i);
      if (!plain) grad_v = grad_v + grad.of_state;
      V grad_h = cell.charge_gradient(h, s, slope, grad.of_spike, grad_v);
      if (!plain) grad_h = grad_h + grad.of_membrane;
      const V grad_input = grad_h * input_share;
      if (plain || !a.constant) put(grad_x + t * a.group + i, grad_input, streaming);
      else add(tape.grad_x.at + i, grad_input);
      gradient.add(t, grad_input);
      const V entered = plain ? V{} : read<V>(tape.entered[t] + i);  // valid where it is needed
      if (!plain && a.grad_threshold)
        add(tape.grad_threshold.at + i,
            cell.threshold_gradient(entered, h, s, slope, grad.of_spike, grad_v, grad_h));
      if (!plain && a.grad_decay)
        add(tape.grad_decay.at + i, cell.decay_gradient(source.currents(i)(t), entered, grad_h));
      grad_v = cell.state_gradient(entered, grad_h, state_share);
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

template <class T, class Source, class S>
void backward_tile(const LifBackward& a, Source& source, Tile<S>& tile, Tape<S>& tape, bool streaming) {
  const size_t row = sizeof(S) * tile.neurons;
  const int64_t last = segments(a) - 1;
  for (int64_t index = 0; index <= last; ++index) {
    __builtin_memcpy(tape.start(index), tile.v.at, row);
    const Segment segment(a, index);
    source.aim(a, tile, segment);
    if (index < last) replay(a, tile, tape, source, segment);
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
    replay(a, tile, tape, source, segment);
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
  each_tile<S>(a, kBackwardTile, begin, end, [&](int64_t first, int64_t neurons) {
    place(tile, a, first, neurons);
    source.place(tile);
    backward_tile<T>(a, source, tile, tape, streaming);
  });
  source.finish();
  if (streaming) stream_fence();
}

template <class T, template <class> class Source>
void backward_tail(const LifBackward& a, int64_t first, double* sums) {
  using S = compute_t<T>;
  LifTail<S> tail(a, first);
  LifBackward part = tail.template inputs<T>(a);
  if (a.output == Output::mean) part.grad = tail.template of<T>(a.grad, 1, 0);
  else if (is_record(a)) part.grad = tail.template steps_of<S>(a.grad);
  else part.grad = tail.template steps_of<T>(a.grad);
  part.slopes = tail.template steps_of<S>(a.slopes);
  part.grad_v = tail.template of<S>(a.grad_v, 1, 0);
  part.grad_x = a.constant ? tail.template result<T>(a.grad_x, 1, 0) : tail.template steps_of_result<T>(a.grad_x);
  part.grad_v0 = tail.template result<S>(a.grad_v0, 1, 0);
  part.grad_decay = tail.template result<S>(a.grad_decay, 1, 0);
  part.grad_threshold = tail.template result<S>(a.grad_threshold, 1, 0);
  backward_blocks<T, Source>(part, false, 0, kQuad<S>, tail.sums(a.norm, sums));
}

template <class T, template <class> class Source>
void backward(const LifBackward& a, int threads) {
  const int64_t rows = (a.constant ? 1 : a.steps) * (a.neurons / a.group);
  const bool streaming = streams(a.grad_x, a.group * int64_t(sizeof(T)), rows);
  const int tails = a.group < a.neurons ? threads : 1;  // threads that run tails
  ChannelSums sums(a.norm.mean.data ? 2 * a.norm.mean.channels : 0, threads + tails);
  each_neuron<T>(
      a, a.group, threads,
      [&](int64_t begin, int64_t end, int thread) {
        backward_blocks<T, Source>(a, streaming, begin, end, sums.of(thread));
      },
      [&](int64_t first, int thread) { backward_tail<T, Source>(a, first, sums.of(threads + thread)); });
  sums.write(static_cast<compute_t<T>*>(a.norm_sums));
}

// Double is compiled for the baseline alone, which serves every instruction set.
template <class T>
void backward(const LifBackward& a, int threads) {
  if constexpr (sizeof(T) == 8 && DEAL_VECTOR_BYTES > 16) baseline::lif_backward(a, threads);
  else a.norm.mean.data ? backward<T, Normalised>(a, threads) : backward<T, Direct>(a, threads);
}

}  // namespace

void lif_backward(const LifBackward& a, int threads) {
  with_type(a.dtype, [&](auto type) { backward<decltype(type)>(a, threads); });
}

}  // namespace DEAL_ISA
}  // namespace deal
