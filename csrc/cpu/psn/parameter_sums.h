// The gradients of weight and bias: sums over neurons. Neurons are summed in chunks that do not depend on the number of
// threads, and the chunks in order.
#pragma once
#include "mix.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int64_t kChunks = 64;  // at most
constexpr int64_t kFold = 128;   // elements for each sum before its lanes are added up

inline int64_t weights_of(const PsnInput& a) { return a.sliding ? a.band : a.steps * a.steps; }
inline int64_t sums_of(const PsnInput& a) { return weights_of(a) + (a.sliding ? 1 : a.steps); }

// Neurons whose sums are kept by lane, in the state type: whole tiles.
inline int64_t fold_of(const PsnInput& a) {
  const int64_t width = tile_width(a);
  return (kFold * sums_of(a) / a.steps / width + 1) * width;
}

// Neurons of a chunk.
inline int64_t chunk_of(const PsnInput& a) {
  const int64_t fold = fold_of(a);
  return (a.neurons / kChunks / fold + 1) * fold;
}

// Adds the sums of tiles to those of their chunk.
template <class S>
class ParameterSums {
  using V = Pack<S>;

 public:
  explicit ParameterSums(const PsnInput& a)
      : a_(a), weights_(weights_of(a)), fold_(fold_of(a)), lanes_(sums_of(a) * V::lanes, Fill::zeros) {}

  // Adds the neurons of a tile, given its inputs and the gradients of h, each [T, width].
  void add(const S* x, const S* grad_h, const Tile& tile, double* sums, bool last) const {
    add_lanes(x, grad_h, tile);
    if (last || (tile.first + tile.neurons) % fold_ == 0) fold(sums);
  }

 private:
  S* at(int64_t i) const { return lanes_.get() + i * V::lanes; }

  int64_t weight_of(int64_t t, int64_t s) const { return a_.sliding ? a_.band - 1 - t + s : t * a_.steps + s; }

  void fold(double* sums) const {
    for (int64_t i = 0; i < sums_of(a_); ++i) {
      sums[i] += sum(load(at(i)));
      store(at(i), V{});
    }
  }

  void add_lanes(const S* x, const S* grad_h, const Tile& tile) const {
    const int64_t T = a_.steps;
    if (a_.band == 0) {
      int64_t t = 0;
      for (; t + 2 <= T; t += 2) add_row<2>(t, 0, T, x, grad_h, tile);
      for (; t < T; ++t) add_row<1>(t, 0, T, x, grad_h, tile);
    } else {
      for (int64_t t = a_.skipped; t < T; ++t) add_row<1>(t, t < a_.band ? 0 : t - a_.band + 1, t + 1, x, grad_h, tile);
    }
  }

  // The bias, and the weights of the inputs from begin to before end, in R steps.
  template <int R>
  DEAL_INLINE void add_row(int64_t t, int64_t begin, int64_t end, const S* x, const S* grad_h, const Tile& tile) const {
    int64_t s = begin;
    if (s + 4 <= end) add_block<R, 4, true>(t, s, x, grad_h, tile), s += 4;
    else add_block<R, 1, true>(t, s, x, grad_h, tile), s += 1;
    for (; s + 4 <= end; s += 4) add_block<R, 4, false>(t, s, x, grad_h, tile);
    for (; s < end; ++s) add_block<R, 1, false>(t, s, x, grad_h, tile);
  }

  S* bias_at(int64_t t) const { return at(weights_ + (a_.sliding ? 0 : t)); }

  // Sums that do not wait for each other are added in one loop: one alone takes as long as five.
  template <int R, int C, bool bias>
  DEAL_INLINE void add_block(int64_t t, int64_t s, const S* x, const S* grad_h, const Tile& tile) const {
    V total[R * C], grads[R], biases[R];
    if (bias) unrolled<R>([&](int r) DEAL_FLAT { biases[r] = load(bias_at(t + r)); });
    unrolled<R * C>([&](int k) DEAL_FLAT { total[k] = load(at(weight_of(t + k / C, s + k % C))); });
    for (int i = 0; i < tile.width; i += V::lanes) {
      unrolled<R>([&](int r) DEAL_FLAT { grads[r] = load(grad_h + (t + r) * tile.width + i); });
      if (bias) unrolled<R>([&](int r) DEAL_FLAT { biases[r] = biases[r] + grads[r]; });
      unrolled<C>([&](int c) DEAL_FLAT {
        const V input = load(x + (s + c) * tile.width + i);
        unrolled<R>([&](int r) DEAL_FLAT { total[r * C + c] = fused(grads[r], input, total[r * C + c]); });
      });
    }
    unrolled<R * C>([&](int k) DEAL_FLAT { store(at(weight_of(t + k / C, s + k % C)), total[k]); });
    if (bias) unrolled<R>([&](int r) DEAL_FLAT { store(bias_at(t + r), biases[r]); });
  }

  const PsnInput& a_;
  const int64_t weights_, fold_;
  const Buffer<S> lanes_;
};

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
