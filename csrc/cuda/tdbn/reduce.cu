// The reductions of batch norm take two kernels: the blocks of the first leave partial results of their slices in a
// workspace, and in the second, one block per channel merges them.
#include "../common/kernels.h"
#include "slices.h"

namespace deal {
namespace cuda {
namespace {

// The number of values, their mean relative to a reference, and the sum of squared distances from the mean.
template <int L>
struct Welford {
  Lanes<L> count, mean, squares;

  __device__ __forceinline__ void merge(const Welford& other) {
    const Lanes<L> all = count + other.count;
    const Lanes<L> share = select(all > 0.0f, other.count / all, Lanes<L>{});
    const Lanes<L> distance = other.mean - mean;
    mean = mean + distance * share;
    squares = squares + (other.squares + distance * distance * (count * share));
    count = all;
  }

  template <class Visit>
  __device__ __forceinline__ void each(const Visit& visit) {
    visit(0, count);
    visit(1, mean);
    visit(2, squares);
  }

  // The moments of the values of all lanes, which have the same count.
  __device__ __forceinline__ Welford<1> folded() const {
    Welford<1> all = {};
#pragma unroll
    for (int i = 0; i < L; ++i) all.mean.at[0] += mean.at[i];
    all.mean.at[0] /= float(L);
#pragma unroll
    for (int i = 0; i < L; ++i) {
      const float distance = mean.at[i] - all.mean.at[0];
      all.squares.at[0] += squares.at[i] + count.at[i] * (distance * distance);
      all.count.at[0] += count.at[i];
    }
    return all;
  }
};

// The sums of grad and of grad * (x - mean).
template <int L>
struct GradientSum {
  Lanes<L> grads, products;

  __device__ __forceinline__ void merge(const GradientSum& other) {
    grads = grads + other.grads;
    products = products + other.products;
  }

  template <class Visit>
  __device__ __forceinline__ void each(const Visit& visit) {
    visit(0, grads);
    visit(1, products);
  }

  __device__ __forceinline__ GradientSum<1> folded() const {
    GradientSum<1> all = {};
#pragma unroll
    for (int i = 0; i < L; ++i) all.merge({{grads.at[i]}, {products.at[i]}});
    return all;
  }
};

// One value for each channel of a group; the values of channels are `stride` apart. All lanes are of one channel
// (`together`), or each lane of another.
template <int L, bool together, class T>
__device__ __forceinline__ Lanes<L> of_group(const T* p, int64_t group, int64_t stride) {
  Lanes<L> result;
#pragma unroll
  for (int i = 0; i < L; ++i) result.at[i] = widen(p[(together ? group : group * L + i) * stride]);
  return result;
}

template <int L, class T>
__device__ __forceinline__ Stored<T, L> word_at(const void* p, int64_t at) {
  return load<L, L, Use::again>(static_cast<const T*>(p) + at, L);
}

// The sums of a thread for the moments. Distances are taken from the first value of each lane, so that the squares keep
// their precision even if the mean is far from zero. For the same reason, means are relative to the channel's first
// value.
template <class T, int L, bool together>
struct Distances {
  using Call = TdbnMoments;
  using Word = Stored<T, L>;
  using Found = Welford<L>;
  Lanes<L> first, total, squares;
  float count;

  __device__ __forceinline__ Distances(const Call&, int64_t) : first(), total(), squares(), count(0) {}

  static __device__ __forceinline__ Word read(const Call& a, int64_t step, int64_t at) {
    return word_at<L, T>(a.x, step * a.time_stride + at);
  }

  __device__ __forceinline__ void add(const Word& word) {
    const Lanes<L> x = widen(word);
    if (count == 0) first = x;
    const Lanes<L> distance = x - first;
    total = total + distance;
    squares = squares + distance * distance;
    count += 1;
  }

  __device__ __forceinline__ Found found(const Call& a, int64_t group) const {
    if (count == 0) return {};
    const Lanes<L> reference = of_group<L, together>(static_cast<const T*>(a.x), group, a.inner);
    const Lanes<L> mean = total / count;
    return {filled<L>(count), (first - reference) + mean, squares - total * mean};
  }
};

// The sums of a thread for the gradient.
template <class T, int L, bool together>
struct GradientProducts {
  using Call = TdbnGradientSums;
  using Found = GradientSum<L>;
  struct Word {
    Stored<T, L> grad, x;
  };
  Lanes<L> mean;
  GradientSum<L> sum;

  __device__ __forceinline__ GradientProducts(const Call& a, int64_t group)
      : mean(of_group<L, together>(static_cast<const float*>(a.mean), group, 1)), sum() {}

  static __device__ __forceinline__ Word read(const Call& a, int64_t step, int64_t at) {
    return {word_at<L, T>(a.grad, step * a.neurons + at), word_at<L, T>(a.x, step * a.time_stride + at)};
  }

  __device__ __forceinline__ void add(const Word& word) {
    const Lanes<L> grad = widen(word.grad);
    sum.merge({grad, grad * (widen(word.x) - mean)});
  }

  __device__ __forceinline__ Found found(const Call&, int64_t) const { return sum; }
};

template <class Call>
struct Reduction {
  Call call;
  Slicing slicing;
  int64_t pitch;
  float* workspace;
};

// Runs through a thread's part of a group in a slice.
template <class Sums, int L>
__device__ __forceinline__ typename Sums::Found found_in(const Reduction<typename Sums::Call>& reduction, int64_t slice,
                                                         int64_t group) {
  const auto& a = reduction.call;
  Sums sums(a, group);
  for (int64_t step = 0; step < a.steps; ++step) {
    SliceWalk walk(reduction.slicing, slice, group, reduction.pitch, L);
    while (walk.left > 0) {
      typename Sums::Word words[kAhead];
      int count = 0;
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        if (walk.left <= 0) continue;
        words[k] = Sums::read(a, step, walk.at);
        walk.next(reduction.slicing);
        count = k + 1;
      }
#pragma unroll
      for (int k = 0; k < kAhead; ++k)
        if (k < count) sums.add(words[k]);
    }
  }
  return sums.found(a, group);
}

template <template <class, int, bool> class Sums, class T, int L, bool together>
__global__ void __launch_bounds__(kBlock) reduce(const Reduction<typename Sums<T, L, together>::Call> reduction) {
  const Slicing& slicing = reduction.slicing;
  const int64_t slice = blockIdx.x / slicing.blocks;
  const int64_t group = (blockIdx.x - slice * slicing.blocks) * slicing.across + threadIdx.x % slicing.across;
  const bool exists = group < slicing.groups;
  typename Sums<T, L, together>::Found found = {};
  if (exists) found = found_in<Sums<T, L, together>, L>(reduction, slice, group);
  const auto write = [&](auto part, int64_t channel) {
    part = merged(part, slicing.across);
    if (exists && int(threadIdx.x) < slicing.across)
      save(reduction.workspace, part, reduction.call.channels, slicing.slices, channel, slice);
  };
  if constexpr (together) write(found.folded(), group);
  else write(found, group * L);
}

template <class T>
__global__ void __launch_bounds__(kBlock) write_moments(const Reduction<TdbnMoments> reduction) {
  const TdbnMoments& a = reduction.call;
  const auto all = all_slices<Welford<1>>(reduction.workspace, a.channels, reduction.slicing.slices);
  if (threadIdx.x > 0) return;
  const int64_t channel = blockIdx.x;
  const float reference = widen(static_cast<const T*>(a.x)[channel * a.inner]);
  static_cast<float*>(a.mean)[channel] = reference + all.mean.at[0];
  static_cast<float*>(a.variance)[channel] = all.squares.at[0] / all.count.at[0];
}

__global__ void __launch_bounds__(kBlock) write_sums(const Reduction<TdbnGradientSums> reduction) {
  const TdbnGradientSums& a = reduction.call;
  const auto all = all_slices<GradientSum<1>>(reduction.workspace, a.channels, reduction.slicing.slices);
  if (threadIdx.x > 0) return;
  float* const sums = static_cast<float*>(a.sums) + blockIdx.x;
  sums[0] = all.grads.at[0];
  sums[a.channels] = all.products.at[0];
}

template <template <class, int, bool> class Sums, class T, int L, bool together, class Call>
const char* launch_reduction(void (*write)(Reduction<Call>), const Call& a, void* workspace, cudaStream_t stream) {
  const Reduction<Call> reduction = {a, slicing_of(a, L, together), pitch_of(a), static_cast<float*>(workspace)};
  const int64_t blocks = reduction.slicing.slices * reduction.slicing.blocks;
  constexpr int bytes = int(sizeof(typename Sums<T, L, together>::Found)), bytes_of_lane = bytes / L;
  const char* error = launch(reduce<Sums, T, L, together>, reduction, blocks * kBlock,
                             together ? bytes_of_lane : bytes, stream);
  return error ? error : launch(write, reduction, a.channels * kBlock, bytes_of_lane, stream);
}

// Reads words of one channel, words of neighbouring channels, or single values.
template <template <class, int, bool> class Sums, class T, class Call>
const char* launch_reduction(void (*write)(Reduction<Call>), const Call& a, bool words, void* workspace,
                             cudaStream_t stream) {
  constexpr int L = kWord<T>;
  if (words && a.inner % L == 0)
    return launch_reduction<Sums, T, L, true>(write, a, workspace, stream);
  if (words && a.inner == 1)
    return launch_reduction<Sums, T, L, false>(write, a, workspace, stream);
  return launch_reduction<Sums, T, 1, false>(write, a, workspace, stream);
}

// The workspace holds partial results by slice.
int64_t bytes_of_slices(const TdbnInput& a, size_t bytes) {
  return int64_t(bytes) * a.channels * slices_of(joined(a));
}

}  // namespace

int64_t workspace_bytes(const TdbnMoments& a) { return bytes_of_slices(a, sizeof(Welford<1>)); }
int64_t workspace_bytes(const TdbnGradientSums& a) { return bytes_of_slices(a, sizeof(GradientSum<1>)); }

const char* tdbn_moments(const TdbnMoments& call, void* workspace, CUstream_st* stream) {
  return with_type(call.dtype, [&](auto type) {
    using T = decltype(type);
    const TdbnMoments a = joined(call);
    return launch_reduction<Distances, T>(write_moments<T>, a, allows_words<T>(a), workspace, stream);
  });
}

const char* tdbn_gradient_sums(const TdbnGradientSums& call, void* workspace, CUstream_st* stream) {
  return with_type(call.dtype, [&](auto type) {
    using T = decltype(type);
    const TdbnGradientSums a = joined(call);
    const bool words = allows_words<T>(a, a.grad);
    return launch_reduction<GradientProducts, T>(write_sums, a, words, workspace, stream);
  });
}

}  // namespace cuda
}  // namespace deal
