// Only x was kept from the forward pass: h of a tile is computed again, then the gradients of h and of x, and the tile's
// share in those of weight and bias.
#include "../../types.h"

#include "../../math/surrogate.h"
#include "../common/dtype.h"
#include "../common/kernels.h"
#include "parameter_sums.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// Turns the gradients of the spikes into those of h.
template <class T, class S>
void to_membranes(const PsnBackward& a, const S* x, S* grad, const Tile& tile) {
  mix_inputs(a, x, tile, [&](int64_t t, int i, auto sums) DEAL_FLAT {
    using V = decltype(sums);
    prefetch_next<V>(static_cast<const T*>(a.x) + t * a.time_stride, tile, i);
    prefetch_next<V>(static_cast<const T*>(a.grad) + (t - a.skipped) * a.group, tile, i);
    const V h = sums + bias_of_step<S>(a, t);
    S* const at = grad + t * tile.width + i;
    store(at, read<V>(at) * surrogate_slope<V>(a.surrogate, S(a.alpha), S(a.height), S(a.outside), h));
  });
}

template <class T, class S>
void write_gradient(const PsnBackward& a, const S* grad_h, const Tile& tile, bool streaming) {
  T* const out = static_cast<T*>(a.grad_x) + tile.place;
  mix(a, [&](int64_t t) DEAL_FLAT { return outputs_of_step<S>(a, t); }, 0, grad_h, tile,
      [&](int64_t t, int i, auto sums) DEAL_FLAT { write_values(out + t * a.group, sums, tile, i, streaming); });
}

// The neurons of some chunks. `sums` holds those of all chunks; null: they are not wanted.
template <class T>
void backward_chunks(const PsnBackward& a, int64_t begin, int64_t end, double* sums, bool streaming) {
  using S = compute_t<T>;
  const int64_t values = a.steps * tile_width(a), chunk = chunk_of(a);
  const Buffer<S> x(values, Fill::none), grad(values, Fill::none);
  const ParameterSums<S> parameters(a);
  const int64_t count = sums_of(a);
  for (int64_t c = begin; c < end; ++c) {
    const int64_t first = c * chunk, last = first + chunk < a.neurons ? first + chunk : a.neurons;
    each_tile(a, first, last, [&](const Tile& tile) DEAL_FLAT {
      read_steps(static_cast<const T*>(a.x), a.time_stride, a.steps, tile, x.get());
      read_steps(static_cast<const T*>(a.grad), a.group, a.steps - a.skipped, tile,
                 grad.get() + a.skipped * tile.width);
      to_membranes<T>(a, x.get(), grad.get(), tile);
      if (a.grad_x) write_gradient<T>(a, grad.get(), tile, streaming);
      if (sums) parameters.add(x.get(), grad.get(), tile, sums + c * count, tile.first + tile.neurons == last);
    });
  }
  if (streaming) stream_fence();
}

// Adds the sums of the chunks, each `count` of them, in order.
template <class S>
void add_chunks(const double* sums, int64_t chunks, int64_t count, int64_t first, int64_t end, void* result) {
  if (!result) return;
  for (int64_t i = first; i < end; ++i) {
    double total = 0;
    for (int64_t c = 0; c < chunks; ++c) total += sums[c * count + i];
    static_cast<S*>(result)[i - first] = S(total);
  }
}

template <class T>
void backward(const PsnBackward& a, int threads) {
  using S = compute_t<T>;
  const bool summed = a.grad_weight || a.grad_bias;
  const bool streaming =
      a.grad_x && streams(a.grad_x, a.group * int64_t(sizeof(T)), a.steps * (a.neurons / a.group));
  const int64_t chunk = chunk_of(a), chunks = (a.neurons + chunk - 1) / chunk;
  const int64_t weights = weights_of(a), count = sums_of(a);
  const Buffer<double> sums(summed ? chunks * count : 0, Fill::zeros);
  const int useful = useful_threads(a.neurons * a.steps, kElementsWorthAThread, threads);
  parallel_for(chunks, 1, useful, [&](int64_t begin, int64_t end, int) {
    backward_chunks<T>(a, begin, end, sums.get(), streaming);
  });
  add_chunks<S>(sums.get(), chunks, count, 0, weights, a.grad_weight);
  add_chunks<S>(sums.get(), chunks, count, weights, count, a.grad_bias);
}

}  // namespace

void psn_backward(const PsnBackward& a, int threads) {
  with_type(a.dtype, [&](auto type) { backward<decltype(type)>(a, threads); });
}

}  // namespace DEAL_ISA
}  // namespace deal
