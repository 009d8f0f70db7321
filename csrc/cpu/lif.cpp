// Neurons are taken in tiles that fit the first-level cache, time outside, one vector after the
// other inside. The branches of math/neuron.h on the kind of neuron are the same for every vector;
// those that cost most are taken out of the loop.
#include "../lif.h"

#include <cstdlib>

#include "kernels.h"
#include "lif_tile.h"
#include "parallel.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kSegment = 16;      // steps whose membranes a backward tile holds at once
constexpr int kMembranes = 4096;  // membranes it holds

// The input of a step. Rows lie far apart, so while one is read the next is called for.
template <class T>
DEAL_INLINE const T* input(const LifInput& a, int64_t step, int64_t first) {
  return static_cast<const T*>(a.x) + step * a.time_stride + first;
}
template <class T>
DEAL_INLINE const T* input_after(const LifInput& a, int64_t step, int64_t first) {
  return step + 1 < a.steps ? input<T>(a, step + 1, first) : input<T>(a, 0, first + kTile);
}

// One step of the tile: charge, fire, reset. Gives every vector of membranes and spikes to `take`.
template <class T, class S, class Take>
DEAL_INLINE void advance(Tile<S>& tile, const T* x, const T* next, const Take& take) {
  split_charge(tile.neuron, [&](Neuron part) DEAL_FLAT { split_reset(part, [&](Neuron kind) DEAL_FLAT {
    tile.each(kind, [&](const auto& cell, int i) DEAL_FLAT {
      __builtin_prefetch(next + i);
      const Pack<S> h = cell.charge(load(tile.v.at + i), load(x + i));
      const Pack<S> s = cell.fire(h);
      store(tile.v.at + i, cell.reset(h, s));
      take(i, h, s);
    });
  }); });
}

template <class T>
void write_spikes(const LifForward& a, Tile<compute_t<T>>& tile, bool streaming) {
  Edge<T> source, target;
  for (int64_t t = 0; t < a.steps; ++t) {
    T* out = static_cast<T*>(a.out) + t * a.neurons + tile.first;
    T* row = target.write(out, tile);
    advance(tile, source.read(input<T>(a, t, tile.first), tile), input_after<T>(a, t, tile.first),
            [&](int i, auto, auto s) DEAL_FLAT { put(row + i, s, streaming); });
    target.written(out, tile);
  }
}

template <class T>
void write_mean(const LifForward& a, Tile<compute_t<T>>& tile, bool streaming) {
  using S = compute_t<T>;
  Row<S> count;
  fill(count.at, tile.padded, S(0));
  Edge<T> source, target;
  for (int64_t t = 0; t < a.steps; ++t)
    advance(tile, source.read(input<T>(a, t, tile.first), tile), input_after<T>(a, t, tile.first),
            [&](int i, auto, auto s) DEAL_FLAT { add(count.at + i, s); });
  T* out = static_cast<T*>(a.out) + tile.first;
  T* row = target.write(out, tile);
  tile.each(tile.neuron, [&](const auto&, int i) DEAL_FLAT { put(row + i, load(count.at + i) / S(a.steps), streaming); });
  target.written(out, tile);
}

// Four vectors side by side: a step of one neuron depends on the step before, and the others fill the wait.
template <class Body>
DEAL_INLINE void four(const Body& body) {
  body(0), body(1), body(2), body(3);
}

// A constant current needs no second look at memory: neurons run through all steps in registers.
template <class T>
void write_mean_of_constant(const LifForward& a, Tile<compute_t<T>>& tile, bool streaming) {
  using S = compute_t<T>;
  constexpr int L = Pack<S>::lanes;
  const S steps = S(a.steps);
  Edge<T> source, target;
  const T* const x = source.read(input<T>(a, 0, tile.first), tile);
  T* const out = static_cast<T*>(a.out) + tile.first;
  T* const row = target.write(out, tile);
  split_charge(tile.neuron, [&](Neuron part) DEAL_FLAT { split_reset(part, [&](Neuron kind) DEAL_FLAT {
    for (int i = 0; i < tile.padded; i += 4 * L) {
      Cell<Pack<S>> cell[4];
      Pack<S> current[4], v[4], count[4] = {};
      const auto at = [&](int u) DEAL_FLAT { return i + u * L < tile.padded ? i + u * L : i; };
      four([&](int u) DEAL_FLAT {
        cell[u] = {kind, load(tile.decay.at + at(u)), load(tile.threshold.at + at(u))};
        current[u] = load(x + at(u));
        v[u] = load(tile.v.at + at(u));
      });
      for (int64_t t = 0; t < a.steps; ++t)
        four([&](int u) DEAL_FLAT {
          const Pack<S> h = cell[u].charge(v[u], current[u]);
          const Pack<S> s = cell[u].fire(h);
          v[u] = cell[u].reset(h, s);
          count[u] = count[u] + s;
        });
      four([&](int u) DEAL_FLAT {
        store(tile.v.at + at(u), v[u]);
        put(row + at(u), count[u] / steps, streaming);
      });
    }
  }); });
  target.written(out, tile);
}

template <class T>
void write_bits(const LifForward& a, Tile<compute_t<T>>& tile) {
  constexpr int L = Pack<compute_t<T>>::lanes;
  Edge<T> source;
  for (int64_t t = 0; t < a.steps; ++t) {
    uint8_t bytes[kTile / 8 + 4] = {};
    advance(tile, source.read(input<T>(a, t, tile.first), tile), input_after<T>(a, t, tile.first),
            [&](int i, auto, auto s) DEAL_FLAT {
              const uint32_t bits = lane_bits(s) << (i % 8) | bytes[i / 8];
              __builtin_memcpy(bytes + i / 8, &bits, L < 8 ? 1 : L / 8);
            });
    if (tile.neurons % 8) bytes[tile.neurons / 8] &= uint8_t((1 << tile.neurons % 8) - 1);
    uint8_t* out = static_cast<uint8_t*>(a.out) + t * ((a.neurons + 7) / 8) + tile.first / 8;
    __builtin_memcpy(out, bytes, size_t(tile.neurons + 7) / 8);
  }
}

template <class T>
void forward(const LifForward& a, int threads) {
  using S = compute_t<T>;
  const int64_t rows = a.output == Output::spikes ? a.steps : 1;
  const bool streaming = a.output != Output::packed && streams(a.out, a.neurons * int64_t(sizeof(T)), rows);
  parallel_for(a.neurons, kTile, threads, [&](int64_t begin, int64_t end) {
    Tile<S> tile;
    prepare(tile, a);
    for (int64_t n = begin; n < end; n += kTile) {
      place(tile, a, n, end - n < kTile ? end - n : kTile);
      switch (a.output) {
        case Output::spikes: write_spikes<T>(a, tile, streaming); break;
        case Output::mean: a.time_stride ? write_mean<T>(a, tile, streaming) : write_mean_of_constant<T>(a, tile, streaming); break;
        case Output::packed: write_bits<T>(a, tile); break;
      }
      if (a.v) __builtin_memcpy(static_cast<S*>(a.v) + n, tile.v.at, sizeof(S) * tile.neurons);
    }
    if (streaming) stream_fence();
  });
}

// What a backward tile keeps. Row t of h is the membrane of step t of the segment, before the reset.
template <class S>
struct Tape {
  alignas(64) S h[kMembranes];
  Row<S> grad_v, grad_x, grad_decay, grad_threshold;
  S* starts;  // the state at the start of every segment
  int pitch;  // neurons between rows of h and of starts
};

template <class T>
void replay(const LifBackward& a, Tile<compute_t<T>>& tile, Tape<compute_t<T>>& tape, int64_t from, int steps) {
  Edge<T> source;
  for (int t = 0; t < steps; ++t) {
    auto* h = tape.h + t * tape.pitch;
    advance(tile, source.read(input<T>(a, from + t, tile.first), tile), input_after<T>(a, from + t, tile.first),
            [&](int i, auto membrane, auto) DEAL_FLAT { store(h + i, membrane); });
  }
}

// The state that entered step t of a segment that began with `start`.
template <class S, class C>
DEAL_INLINE Pack<S> state_before(const C& cell, const Tape<S>& tape, const S* start, int t, int i) {
  if (t == 0) return load(start + i);
  const Pack<S> h = load(tape.h + (t - 1) * tape.pitch + i);
  return cell.reset(h, cell.fire(h));
}

template <class T>
void reverse(const LifBackward& a, const Tile<compute_t<T>>& tile, Tape<compute_t<T>>& tape, int64_t from, int t, bool streaming) {
  using S = compute_t<T>;
  Edge<T> source, given, target;
  const int64_t step = from + t;
  const bool mean = a.output == Output::mean;
  const S steps = S(a.steps);
  const S* const h = tape.h + t * tape.pitch;
  const S* const start = tape.starts + from / kSegment * tape.pitch;
  S* const carried = tape.grad_v.at;
  const T* const grads = static_cast<const T*>(a.grad) + (mean ? 0 : step * a.neurons) + tile.first;
  const T* const grad = given.read(grads, tile);
  const T* const next = step > 0 && !mean ? grads - a.neurons : grads + tape.pitch;
  const T* const x = a.grad_decay ? source.read(input<T>(a, step, tile.first), tile) : nullptr;
  T* const grad_x = static_cast<T*>(a.grad_x) + (a.constant ? 0 : step * a.neurons) + tile.first;
  T* const row = a.constant ? nullptr : target.write(grad_x, tile);

  const auto run = [&](Neuron kind, bool usual) DEAL_FLAT {
    tile.each(kind, [&](const auto& cell, int i) DEAL_FLAT {
      __builtin_prefetch(next + i);
      const Pack<S> membrane = load(h + i);
      const Pack<S> s = cell.fire(membrane);
      const Pack<S> slope = cell.spike_slope(membrane);
      const Pack<S> grad_s = !usual && mean ? load(grad + i) / steps : load(grad + i);
      const Pack<S> grad_v = load(carried + i);
      const Pack<S> grad_h = cell.charge_gradient(membrane, s, slope, grad_s, grad_v);
      store(carried + i, cell.state_gradient(grad_h));
      const Pack<S> grad_input = cell.input_gradient(grad_h);
      if (usual) return put(row + i, grad_input, streaming);

      if (row) put(row + i, grad_input, streaming);
      else add(tape.grad_x.at + i, grad_input);
      if (a.grad_threshold) add(tape.grad_threshold.at + i, cell.threshold_gradient(membrane, s, slope, grad_s, grad_v));
      if (x) add(tape.grad_decay.at + i, cell.decay_gradient(load(x + i), state_before(cell, tape, start, t, i), grad_h));
    });
  };
  const bool usual = row && !mean && !x && !a.grad_threshold && tile.neuron.fire == Fire::ge;
  if (!usual) run(tile.neuron, false);
  else split_surrogate(tile.neuron, [&](Neuron part) DEAL_FLAT { split_reset(part, [&](Neuron kind) DEAL_FLAT {
    kind.fire = Fire::ge;
    run(kind, true);
  }); });
  if (row) target.written(grad_x, tile);
}

// x is all that was kept: the membranes are computed again, from the state at the start of each
// segment of kSegment steps.
template <class T>
void backward_tile(const LifBackward& a, Tile<compute_t<T>>& tile, Tape<compute_t<T>>& tape, bool streaming) {
  using S = compute_t<T>;
  const size_t row = sizeof(S) * tile.neurons;
  const int64_t last = (a.steps - 1) / kSegment;
  for (int64_t i = 0; i <= last; ++i) {
    __builtin_memcpy(tape.starts + i * tape.pitch, tile.v.at, sizeof(S) * tile.padded);
    if (i < last) replay<T>(a, tile, tape, i * kSegment, kSegment);
  }

  fill(tape.grad_v.at, tile.padded, S(0));
  fill(tape.grad_x.at, tile.padded, S(0));
  fill(tape.grad_decay.at, tile.padded, S(0));
  fill(tape.grad_threshold.at, tile.padded, S(0));
  if (a.grad_v) __builtin_memcpy(tape.grad_v.at, static_cast<const S*>(a.grad_v) + tile.first, row);
  for (int64_t i = last; i >= 0; --i) {
    const int64_t from = i * kSegment;
    const int steps = int(a.steps - from < kSegment ? a.steps - from : kSegment);
    __builtin_memcpy(tile.v.at, tape.starts + i * tape.pitch, sizeof(S) * tile.padded);
    replay<T>(a, tile, tape, from, steps);
    for (int t = steps - 1; t >= 0; --t) reverse<T>(a, tile, tape, from, t, streaming);
  }

  const auto save = [&](void* result, const Row<S>& values) {
    if (result) __builtin_memcpy(static_cast<S*>(result) + tile.first, values.at, row);
  };
  save(a.grad_v0, tape.grad_v);
  save(a.grad_decay, tape.grad_decay);
  save(a.grad_threshold, tape.grad_threshold);
  if (!a.constant) return;
  Edge<T> target;
  T* const grad_x = static_cast<T*>(a.grad_x) + tile.first;
  T* const sum = target.write(grad_x, tile);
  tile.each(tile.neuron, [&](const auto&, int i) DEAL_FLAT { put(sum + i, load(tape.grad_x.at + i), streaming); });
  target.written(grad_x, tile);
}

template <class T>
void backward(const LifBackward& a, int threads) {
  using S = compute_t<T>;
  const bool streaming = streams(a.grad_x, a.neurons * int64_t(sizeof(T)), a.constant ? 1 : a.steps);
  const int held = int(a.steps < kSegment ? a.steps : kSegment);
  const int pitch = kMembranes / held < kTile ? kMembranes / held / 64 * 64 : kTile;
  const int64_t segments = (a.steps - 1) / kSegment + 1;
  parallel_for(a.neurons, pitch, threads, [&](int64_t begin, int64_t end) {
    Tile<S> tile;
    Tape<S> tape;
    tape.pitch = pitch;
    tape.starts = static_cast<S*>(aligned_alloc(64, sizeof(S) * size_t(pitch * segments)));
    prepare(tile, a);
    for (int64_t n = begin; n < end; n += pitch) {
      place(tile, a, n, end - n < pitch ? end - n : pitch);
      backward_tile<T>(a, tile, tape, streaming);
    }
    free(tape.starts);
    if (streaming) stream_fence();
  });
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
