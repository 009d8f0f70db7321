// Batch norm, element by element. A thread has a word of a row and the same word of the next few rows, so that it
// computes the channels once.
#include "../../math/norm.h"
#include "rows.h"
#include "../common/channels.h"
#include "../common/kernels.h"
#include "../common/launch.h"

namespace deal {
namespace cuda {
namespace {

template <class Call>
struct Map {
  Call call;
  int64_t pitch, rows;
  int64_t groups;  // groups of kAhead rows in a step
};

// The first element of a thread: its offset in the row, in x, and in a tensor that is contiguous in time.
struct Position {
  int64_t column, x, dense;
  int rows;
};

template <int L, class Call>
__device__ __forceinline__ Position place_of(const Map<Call>& map) {
  const int64_t thread = first_of_thread(1);
  const int64_t words = map.pitch / L;
  const int64_t group = thread / words;
  const int64_t step = map.call.steps == 1 ? 0 : group / map.groups;
  const int64_t column = (thread - group * words) * L;
  const int64_t row = (group - step * map.groups) * kAhead;
  if (step >= map.call.steps || row >= map.rows) return {};
  const int64_t left = map.rows - row;
  const int64_t at = row * map.pitch + column;
  return {column, step * map.call.time_stride + at, step * map.call.neurons + at,
          left < kAhead ? int(left) : kAhead};
}

template <class T, int L, class Value>
__device__ __forceinline__ void write(void* result, const Position& place, int64_t pitch, const Value& value) {
  T* out = static_cast<T*>(result) + place.dense;
#pragma unroll
  for (int k = 0; k < kAhead; ++k, out += pitch)
    if (k < place.rows) store<L>(out, value(k), L);
}

template <class T, int L>
__global__ void __launch_bounds__(kBlock) normalise(const Map<TdbnNormalise> map) {
  const TdbnNormalise& a = map.call;
  const Position place = place_of<L>(map);
  if (place.rows == 0) return;
  Queue<T, L> x;
  x.template read<L>(static_cast<const T*>(a.x) + place.x, map.pitch, place.rows, L);
  Lanes<L> values[3];
  ChannelsOf<L>(a.channels, a.inner, place.column).read(values, {a.mean, a.scale, a.shift});
  write<T, L>(a.out, place, map.pitch, [&](int k) {
    return normalised(widen(x.at[k]), values[0], values[1], values[2]);
  });
}

template <class T, int L>
__global__ void __launch_bounds__(kBlock) gradient(const Map<TdbnGradient> map) {
  const TdbnGradient& a = map.call;
  const Position place = place_of<L>(map);
  if (place.rows == 0) return;
  Queue<T, L> x, grad;
  x.template read<L>(static_cast<const T*>(a.x) + place.x, map.pitch, place.rows, L);
  grad.template read<L>(static_cast<const T*>(a.grad) + place.dense, map.pitch, place.rows, L);
  Lanes<L> values[4];
  ChannelsOf<L>(a.channels, a.inner, place.column).read(values, {a.mean, a.direct, a.by_variance, a.by_mean});
  write<T, L>(a.out, place, map.pitch, [&](int k) {
    return norm_gradient(widen(grad.at[k]), widen(x.at[k]), values[0], values[1], values[2], values[3]);
  });
}

template <class Call>
const char* launch_map(void (*kernel)(Map<Call>), int each, const Call& a, cudaStream_t stream) {
  const int64_t pitch = pitch_of(a), rows = rows_of(a), groups = divided_up(rows, kAhead);
  const Map<Call> map = {a, pitch, rows, groups};
  return launch(kernel, map, a.steps * groups * (pitch / each), 0, stream);
}

}  // namespace

const char* tdbn_normalise(const TdbnNormalise& call, void*, CUstream_st* stream) {
  return with_type(call.dtype, [&](auto type) {
    using T = decltype(type);
    const TdbnNormalise a = joined(call);
    return allows_words<T>(a, a.out) ? launch_map(normalise<T, kWord<T>>, kWord<T>, a, stream)
                                     : launch_map(normalise<T, 1>, 1, a, stream);
  });
}

const char* tdbn_gradient(const TdbnGradient& call, void*, CUstream_st* stream) {
  return with_type(call.dtype, [&](auto type) {
    using T = decltype(type);
    const TdbnGradient a = joined(call);
    return allows_words<T>(a, a.grad, a.out) ? launch_map(gradient<T, kWord<T>>, kWord<T>, a, stream)
                                             : launch_map(gradient<T, 1>, 1, a, stream);
  });
}

}  // namespace cuda
}  // namespace deal
