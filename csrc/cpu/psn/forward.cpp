// Spikes of a tile at a time: x is read once and the spikes are written once.
#include "../../types.h"

#include "../common/dtype.h"
#include "../common/kernels.h"
#include "mix.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// O is the type of the result.
template <class T, class O>
void forward(const PsnForward& a, int threads) {
  using S = compute_t<T>;
  const bool streaming = streams(a.out, a.group * int64_t(sizeof(O)), (a.steps - a.skipped) * (a.neurons / a.group));
  const int useful = useful_threads(a.neurons * a.steps, kElementsWorthAThread, threads);
  parallel_for(a.neurons, tile_width(a), useful, [&](int64_t begin, int64_t end, int) {
    const Buffer<S> x(a.steps * tile_width(a), Fill::none);
    each_tile(a, begin, end, [&](const Tile& tile) DEAL_FLAT {
      const T* const source = static_cast<const T*>(a.x);
      read_steps(source, a.time_stride, a.steps, tile, x.get());
      O* const out = static_cast<O*>(a.out) + tile.place;
      mix_inputs(a, x.get(), tile, [&](int64_t t, int i, auto sums) DEAL_FLAT {
        prefetch_next<decltype(sums)>(source + t * a.time_stride, tile, i);
        const auto h = sums + bias_of_step<S>(a, t);
        O* const to = out + (t - a.skipped) * a.group;
        if (a.membranes) write_values(to, h, tile, i, streaming);
        else write_values(to, select(h >= S(0), S(1), S(0)), tile, i, streaming);
      });
    });
    if (streaming) stream_fence();
  });
}

}  // namespace

void psn_forward(const PsnForward& a, int threads) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    a.membranes ? forward<T, compute_t<T>>(a, threads) : forward<T, T>(a, threads);
  });
}

}  // namespace DEAL_ISA
}  // namespace deal
