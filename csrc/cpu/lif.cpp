// Neurons are taken in tiles that fit the first-level cache, a tile in segments of steps, a segment
// in blocks of a few vectors that run through its steps in registers. The branches of math/neuron.h
// on the kind of neuron are the same for every vector; those that cost most are taken out of the loops.
#include "../lif.h"

#include <cstdlib>

#include "kernels.h"
#include "lif_rest.h"
#include "lif_tile.h"
#include "parallel.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kSegment = 16;  // rows of a tensor read side by side, and membranes of a neuron held at once
constexpr int64_t kElementsWorthAThread = 65536;

// The steps of a segment.
struct Segment {
  int64_t from;
  int steps;

  Segment(const LifInput& a, int64_t index)
      : from(index * kSegment), steps(int(a.steps - from < kSegment ? a.steps - from : kSegment)) {}
};

int64_t segments(const LifInput& a) { return (a.steps - 1) / kSegment + 1; }

// The input of a block over a segment. Rows lie far apart, so the rows this thread reads next are
// called for while it works on these.
template <class T>
struct Current {
  const T* x;
  int64_t stride, ahead;

  Current(const LifInput& a, int64_t first, const Segment& segment)
      : x(static_cast<const T*>(a.x) + segment.from * a.time_stride + first),
        stride(a.time_stride),
        ahead(segment.from + segment.steps < a.steps ? kSegment * stride : kTile - segment.from * stride) {}
};

// Runs a block through a segment: charge, fire, reset. Gives every vector of membranes and spikes to
// take(step, vector, h, s).
template <class T, class S, class Take>
DEAL_INLINE void run(const Cell<Pack<S>> (&cell)[kSide], Pack<S> (&v)[kSide], Current<T> current, int i, int steps,
                     const Take& take) {
  const T* x = current.x + i;
  for (int t = 0; t < steps; ++t, x += current.stride)
    side_by_side([&](int u) DEAL_FLAT {
      __builtin_prefetch(x + current.ahead + u * Pack<S>::lanes);
      const Pack<S> h = cell[u].charge(v[u], load(x + u * Pack<S>::lanes));
      const Pack<S> s = cell[u].fire(h);
      v[u] = cell[u].reset(h, s);
      take(t, u, h, s);
    });
}

// A block's cells and its row of state.
template <class S>
DEAL_INLINE void enter(Cell<Pack<S>> (&cell)[kSide], Pack<S> (&v)[kSide], const Tile<S>& tile, const Neuron& kind,
                       const S* state, int i) {
  side_by_side([&](int u) DEAL_FLAT {
    cell[u] = tile.cell(kind, i + u * Pack<S>::lanes);
    v[u] = load(state + i + u * Pack<S>::lanes);
  });
}
template <class S>
DEAL_INLINE void leave(const Pack<S> (&v)[kSide], S* row) {
  side_by_side([&](int u) DEAL_FLAT { store(row + u * Pack<S>::lanes, v[u]); });
}

// Calls next(kind) compiled for its reset; double, there for checks, is spared the copies.
template <class S, class Next>
DEAL_INLINE void split_reset(const Neuron& neuron, const Next& next) {
  if constexpr (sizeof(S) == 8) next(neuron);
  else split<&Neuron::reset, Reset::hard, Reset::soft, Reset::none>(neuron, next);
}

template <class T, class S>
void write_spikes(const LifForward& a, Tile<S>& tile, Segment segment, bool streaming) {
  const Current<T> current(a, tile.first, segment);
  T* const out = static_cast<T*>(a.out) + segment.from * a.neurons + tile.first;
  split_reset<S>(tile.neuron, [&](const Neuron& kind) DEAL_FLAT {
    tile.each_block([&](int i) DEAL_FLAT {
      Cell<Pack<S>> cell[kSide];
      Pack<S> v[kSide];
      enter(cell, v, tile, kind, tile.v.at, i);
      run(cell, v, current, i, segment.steps, [&](int t, int u, auto, auto s) DEAL_FLAT {
        put(out + t * a.neurons + i + u * Pack<S>::lanes, s, streaming);
      });
      leave(v, tile.v.at + i);
    });
  });
}

template <class T, class S>
void write_mean(const LifForward& a, Tile<S>& tile, Row<S>& counts, Segment segment, bool streaming) {
  const Current<T> current(a, tile.first, segment);
  T* const out = static_cast<T*>(a.out) + tile.first;
  const bool last = segment.from + segment.steps == a.steps;
  const S steps = S(a.steps);
  split_reset<S>(tile.neuron, [&](const Neuron& kind) DEAL_FLAT {
    tile.each_block([&](int i) DEAL_FLAT {
      Cell<Pack<S>> cell[kSide];
      Pack<S> v[kSide], count[kSide] = {};
      enter(cell, v, tile, kind, tile.v.at, i);
      if (segment.from > 0) side_by_side([&](int u) DEAL_FLAT { count[u] = load(counts.at + i + u * Pack<S>::lanes); });
      run(cell, v, current, i, segment.steps, [&](int, int u, auto, auto s) DEAL_FLAT { count[u] = count[u] + s; });
      leave(v, tile.v.at + i);
      if (!last) return leave(count, counts.at + i);
      side_by_side([&](int u) DEAL_FLAT { put(out + i + u * Pack<S>::lanes, count[u] / steps, streaming); });
    });
  });
}

template <class T, class S>
void write_bits(const LifForward& a, Tile<S>& tile, Segment segment) {
  const Current<T> current(a, tile.first, segment);
  const int64_t pitch = (a.neurons + 7) / 8;
  uint8_t* const out = static_cast<uint8_t*>(a.out) + segment.from * pitch + tile.first / 8;
  split_reset<S>(tile.neuron, [&](const Neuron& kind) DEAL_FLAT {
    tile.each_block([&](int i) DEAL_FLAT {
      Cell<Pack<S>> cell[kSide];
      Pack<S> v[kSide];
      uint64_t bits = 0;
      enter(cell, v, tile, kind, tile.v.at, i);
      run(cell, v, current, i, segment.steps, [&](int t, int u, auto, auto s) DEAL_FLAT {
        bits = (u == 0 ? 0 : bits) | uint64_t(lane_bits(s)) << u * Pack<S>::lanes;
        if (u == kSide - 1) __builtin_memcpy(out + t * pitch + i / 8, &bits, kBlock<S> / 8);
      });
      leave(v, tile.v.at + i);
    });
  });
}

// The neurons from begin to end, whole blocks.
template <class T>
void forward_blocks(const LifForward& a, bool streaming, int64_t begin, int64_t end) {
  using S = compute_t<T>;
  Tile<S> tile;
  Row<S> counts;
  prepare(tile, a, end - begin);
  for (int64_t n = begin; n < end; n += kTile) {
    place(tile, a, n, end);
    for (int64_t i = 0; i < segments(a); ++i) {
      switch (a.output) {
        case Output::spikes: write_spikes<T>(a, tile, Segment(a, i), streaming); break;
        case Output::mean: write_mean<T>(a, tile, counts, Segment(a, i), streaming); break;
        case Output::packed: write_bits<T>(a, tile, Segment(a, i)); break;
      }
    }
    if (a.v) __builtin_memcpy(static_cast<S*>(a.v) + n, tile.v.at, sizeof(S) * tile.neurons);
  }
  if (streaming) stream_fence();
}

template <class T>
void forward_rest(const LifForward& a, int64_t first) {
  using S = compute_t<T>;
  Rest<S> rest(first, a.neurons);
  LifForward part = rest.template inputs<T>(a);
  part.v = rest.template result<S>(a.v, 1, 0);
  if (a.output == Output::packed) part.out = rest.bits(a.out, a.steps, (a.neurons + 7) / 8);
  else part.out = rest.template result<T>(a.out, a.output == Output::mean ? 1 : a.steps, a.neurons);
  forward_blocks<T>(part, false, 0, kBlock<S>);
  if (a.output == Output::packed) rest.clear_padding(static_cast<uint8_t*>(part.out), a.steps);
}

// All whole blocks on the threads that have something to do, then the rest.
template <class T, class Blocks, class Rest>
DEAL_INLINE void each_neuron(const LifInput& a, int threads, const Blocks& blocks, const Rest& rest) {
  const int64_t whole = a.neurons / kBlock<compute_t<T>> * kBlock<compute_t<T>>;
  const int64_t useful = a.neurons * a.steps / kElementsWorthAThread + 1;
  if (whole > 0) parallel_for(whole, kTile, useful < threads ? int(useful) : threads, blocks);
  if (whole < a.neurons) rest(whole);
}

template <class T>
void forward(const LifForward& a, int threads) {
  const int64_t rows = a.output == Output::spikes ? a.steps : 1;
  const bool streaming = a.output != Output::packed && streams(a.out, a.neurons * int64_t(sizeof(T)), rows);
  each_neuron<T>(a, threads, [&](int64_t begin, int64_t end) { forward_blocks<T>(a, streaming, begin, end); },
                 [&](int64_t first) { forward_rest<T>(a, first); });
}

// What backward carries from one segment of a tile to the one before.
template <class S>
struct Tape {
  Row<S> grad_v, grad_x, grad_decay, grad_threshold;
  S* starts;  // the state at the start of every segment, a row of kTile each
};

template <class S>
DEAL_INLINE void add(S* p, Pack<S> a) {
  store(p, load(p) + a);
}

// The state at the start of every segment, from x alone.
template <class T, class S>
void keep_starts(const LifBackward& a, Tile<S>& tile, Tape<S>& tape) {
  for (int64_t index = 0;; ++index) {
    __builtin_memcpy(tape.starts + index * kTile, tile.v.at, sizeof(S) * tile.neurons);
    if (index + 1 == segments(a)) return;
    const Current<T> current(a, tile.first, Segment(a, index));
    split_reset<S>(tile.neuron, [&](const Neuron& kind) DEAL_FLAT {
      tile.each_block([&](int i) DEAL_FLAT {
        Cell<Pack<S>> cell[kSide];
        Pack<S> v[kSide];
        enter(cell, v, tile, kind, tile.v.at, i);
        run(cell, v, current, i, kSegment, [](int, int, auto, auto) DEAL_FLAT {});
        leave(v, tile.v.at + i);
      });
    });
  }
}

// One block of one segment, backward in time. h holds its membranes, kSide vectors a step.
template <class T, bool usual, class S>
DEAL_INLINE void reverse(const LifBackward& a, const Cell<Pack<S>> (&cell)[kSide], const S* h, const S* start, Tape<S>& tape, int64_t first,
                         int i, const Segment& segment, bool streaming) {
  constexpr int L = Pack<S>::lanes;
  const bool mean = a.output == Output::mean;
  const S steps = S(a.steps);
  const int64_t end = segment.from + segment.steps;
  const int64_t ahead = segment.from > 0 ? -kSegment * a.neurons : kTile + (a.steps - end) * a.neurons;
  const T* const grad = static_cast<const T*>(a.grad) + (mean ? 0 : segment.from * a.neurons) + first + i;
  T* const grad_x = static_cast<T*>(a.grad_x) + (a.constant ? 0 : segment.from * a.neurons) + first + i;
  const T* const x = static_cast<const T*>(a.x) + segment.from * a.time_stride + first + i;
  Pack<S> carried[kSide], input_share[kSide], state_share[kSide];
  side_by_side([&](int u) DEAL_FLAT {
    carried[u] = load(tape.grad_v.at + i + u * L);
    input_share[u] = cell[u].input_share();
    state_share[u] = cell[u].state_share();
  });
  for (int t = segment.steps - 1; t >= 0; --t)
    side_by_side([&](int u) DEAL_FLAT {
      const T* const given = grad + (!usual && mean ? 0 : t * a.neurons) + u * L;
      __builtin_prefetch(given + ahead);
      const Pack<S> membrane = load(h + t * kBlock<S> + u * L);
      const Pack<S> s = cell[u].fire(membrane);
      const Pack<S> slope = cell[u].spike_slope(membrane);
      const Pack<S> grad_s = !usual && mean ? load(given) / steps : load(given);
      const Pack<S> grad_h = cell[u].charge_gradient(membrane, s, slope, grad_s, carried[u]);
      const Pack<S> grad_v = carried[u];
      carried[u] = grad_h * state_share[u];
      const Pack<S> grad_input = grad_h * input_share[u];
      if (usual) return put(grad_x + t * a.neurons + u * L, grad_input, streaming);

      const int at = i + u * L;
      if (a.constant) add(tape.grad_x.at + at, grad_input);
      else put(grad_x + t * a.neurons + u * L, grad_input, streaming);
      if (a.grad_threshold) add(tape.grad_threshold.at + at, cell[u].threshold_gradient(membrane, s, slope, grad_s, grad_v));
      if (!a.grad_decay) return;
      const Pack<S> before = load(h + (t - (t > 0)) * kBlock<S> + u * L);
      const Pack<S> entered = t > 0 ? cell[u].reset(before, cell[u].fire(before)) : load(start + at);
      add(tape.grad_decay.at + at, cell[u].decay_gradient(load(x + t * a.time_stride + u * L), entered, grad_h));
    });
  side_by_side([&](int u) DEAL_FLAT { store(tape.grad_v.at + i + u * L, carried[u]); });
}

template <class T, bool usual, class S>
DEAL_INLINE void reverse_segment(const LifBackward& a, const Neuron& kind, const Tile<S>& tile, Tape<S>& tape, int64_t index,
                                 bool streaming) {
  const Segment segment(a, index);
  const Current<T> current(a, tile.first, segment);
  const S* const start = tape.starts + index * kTile;
  tile.each_block([&](int i) DEAL_FLAT {
    alignas(64) S h[kSegment * kBlock<S>];
    Cell<Pack<S>> cell[kSide];
    Pack<S> v[kSide];
    enter(cell, v, tile, kind, start, i);
    run(cell, v, current, i, segment.steps, [&](int t, int u, auto membrane, auto) DEAL_FLAT {
      store(h + t * kBlock<S> + u * Pack<S>::lanes, membrane);
    });
    reverse<T, usual>(a, cell, h, start, tape, tile.first, i, segment, streaming);
  });
}

template <class T, class S>
void reverse_usual(const LifBackward& a, const Tile<S>& tile, Tape<S>& tape, int64_t index, bool streaming) {
  split<&Neuron::surrogate, Surrogate::sigmoid, Surrogate::atan, Surrogate::triangle, Surrogate::rectangle>(
      tile.neuron, [&](const Neuron& part) DEAL_FLAT {
        split_reset<S>(part, [&](Neuron kind) DEAL_FLAT {
          kind.fire = Fire::ge;
          reverse_segment<T, true>(a, kind, tile, tape, index, streaming);
        });
      });
}

template <class T, class S>
void reverse_any(const LifBackward& a, const Tile<S>& tile, Tape<S>& tape, int64_t index, bool streaming) {
  reverse_segment<T, false>(a, tile.neuron, tile, tape, index, streaming);
}

// x is all that was kept: the membranes are computed again, segment by segment.
template <class T, class S>
void backward_tile(const LifBackward& a, Tile<S>& tile, Tape<S>& tape, bool streaming) {
  keep_starts<T>(a, tile, tape);
  fill(tape.grad_x.at, tile.neurons, S(0));
  fill(tape.grad_decay.at, tile.neurons, S(0));
  fill(tape.grad_threshold.at, tile.neurons, S(0));
  if (a.grad_v) __builtin_memcpy(tape.grad_v.at, static_cast<const S*>(a.grad_v) + tile.first, sizeof(S) * tile.neurons);
  else fill(tape.grad_v.at, tile.neurons, S(0));

  const bool usual = !a.constant && a.output != Output::mean && !a.grad_decay && !a.grad_threshold && a.neuron.fire == Fire::ge;
  for (int64_t index = segments(a) - 1; index >= 0; --index)
    usual ? reverse_usual<T>(a, tile, tape, index, streaming) : reverse_any<T>(a, tile, tape, index, streaming);

  const auto save = [&](void* result, const Row<S>& values) {
    if (result) __builtin_memcpy(static_cast<S*>(result) + tile.first, values.at, sizeof(S) * tile.neurons);
  };
  save(a.grad_v0, tape.grad_v);
  save(a.grad_decay, tape.grad_decay);
  save(a.grad_threshold, tape.grad_threshold);
  if (!a.constant) return;
  T* const sum = static_cast<T*>(a.grad_x) + tile.first;
  for (int i = 0; i < tile.neurons; i += Pack<S>::lanes) put(sum + i, load(tape.grad_x.at + i), streaming);
}

template <class T>
void backward_blocks(const LifBackward& a, bool streaming, int64_t begin, int64_t end) {
  using S = compute_t<T>;
  Tile<S> tile;
  Tape<S> tape;
  tape.starts = static_cast<S*>(aligned_alloc(64, sizeof(S) * kTile * size_t(segments(a))));
  prepare(tile, a, end - begin);
  for (int64_t n = begin; n < end; n += kTile) {
    place(tile, a, n, end);
    backward_tile<T>(a, tile, tape, streaming);
  }
  free(tape.starts);
  if (streaming) stream_fence();
}

template <class T>
void backward_rest(const LifBackward& a, int64_t first) {
  using S = compute_t<T>;
  Rest<S> rest(first, a.neurons);
  LifBackward part = rest.template inputs<T>(a);
  part.grad = rest.template of<T>(a.grad, a.output == Output::mean ? 1 : a.steps, a.neurons);
  part.grad_v = rest.template of<S>(a.grad_v, 1, 0);
  part.grad_x = rest.template result<T>(a.grad_x, a.constant ? 1 : a.steps, a.neurons);
  part.grad_v0 = rest.template result<S>(a.grad_v0, 1, 0);
  part.grad_decay = rest.template result<S>(a.grad_decay, 1, 0);
  part.grad_threshold = rest.template result<S>(a.grad_threshold, 1, 0);
  backward_blocks<T>(part, false, 0, kBlock<S>);
}

template <class T>
void backward(const LifBackward& a, int threads) {
  const bool streaming = streams(a.grad_x, a.neurons * int64_t(sizeof(T)), a.constant ? 1 : a.steps);
  each_neuron<T>(a, threads, [&](int64_t begin, int64_t end) { backward_blocks<T>(a, streaming, begin, end); },
                 [&](int64_t first) { backward_rest<T>(a, first); });
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
