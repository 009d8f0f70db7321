// Reductions of the channels of a tensor [steps][rows][channels][inner]: how they are slicing into slices, and
// how the threads of a block put together what they found. The order is fixed: the same input gives the
// same bits.
#pragma once
#include "rows.h"
#include "../common/launch.h"

namespace deal {
namespace cuda {
namespace {

constexpr int64_t kAcross = 128;        // neighbouring elements that the groups of a block should have
constexpr int64_t kSliceValues = 4096;  // of all channels of a block, at least
constexpr int64_t kMostSlices = 1024;
constexpr int kMostGroups = 32;  // of a block, which leaves each a few threads

// How many neighbouring channels a block takes, a power of two: more than one where a row has little of each.
inline int64_t neighbours(int64_t channels, int64_t inner) {
  int64_t count = 1;
  while (count < channels && count * inner < kAcross) count *= 2;
  return count;
}

// The values of a channel in a slice: whole words of any length.
inline int64_t slice_values(int64_t values, int64_t channels, int64_t inner) {
  const int64_t least = kSliceValues / neighbours(channels, inner);
  const int64_t few = divided_up(divided_up(values, kMostSlices), 8) * 8;
  return few > least ? few : least;
}

inline int64_t slices_of(int64_t values, int64_t channels, int64_t inner) {
  return divided_up(values, slice_values(values, channels, inner));
}

// A group is one channel, or as many neighbouring channels as a word holds one value each of. A block takes
// a slice of a few neighbouring groups, and walks through it for all steps.
struct Slicing {
  int64_t groups, blocks;  // of a row, and blocks that share them
  int64_t slices;
  int64_t words, each;   // of a group in a step, and in a slice of it
  int64_t words_of_row;  // of a group
  int64_t words_on, on;  // from one word of a thread to its next, also in elements
  int64_t to_next_row;   // from the end of a group to its begin in the next row, in elements
  int across;            // groups of a block, a power of two
};

// L elements are a word, all of one channel or each of its own.
inline Slicing slicing_of(const TdbnInput& a, int L, bool together) {
  const int64_t pitch = pitch_of(a), values = rows_of(a) * a.inner;
  const int channels = together ? 1 : L, values_of_word = L / channels;
  int64_t across = neighbours(a.channels, a.inner) / channels;
  across = across < 1 ? 1 : across > kMostGroups ? kMostGroups : across;
  Slicing slicing = {};
  slicing.across = int(across);
  slicing.groups = a.channels / channels;
  slicing.blocks = divided_up(slicing.groups, across);
  slicing.slices = slices_of(values, a.channels, a.inner);
  slicing.words = values / values_of_word;
  slicing.each = slice_values(values, a.channels, a.inner) / values_of_word;
  slicing.words_of_row = a.inner / values_of_word;
  const int64_t walkers = kBlock / across;
  slicing.words_on = walkers % slicing.words_of_row;
  slicing.on = walkers / slicing.words_of_row * pitch + slicing.words_on * L;
  slicing.to_next_row = pitch - slicing.words_of_row * L;
  return slicing;
}

// A thread's way through the words of a group in a slice of a step.
struct SliceWalk {
  int64_t at;    // of the word in the step, in elements
  int64_t word;  // of its row
  int64_t left;  // words to the end of the slice

  __device__ __forceinline__ SliceWalk(const Slicing& slicing, int64_t slice, int64_t group, int64_t pitch, int L) {
    const int64_t begin = slice * slicing.each, place = begin + threadIdx.x / slicing.across;
    const int64_t row = place / slicing.words_of_row;
    word = place - row * slicing.words_of_row;
    at = row * pitch + (group * slicing.words_of_row + word) * L;
    left = (begin + slicing.each < slicing.words ? begin + slicing.each : slicing.words) - place;
  }

  __device__ __forceinline__ void next(const Slicing& slicing) {
    word += slicing.words_on;
    at += slicing.on;
    if (word >= slicing.words_of_row) {
      word -= slicing.words_of_row;
      at += slicing.to_next_row;
    }
    left -= kBlock / slicing.across;
  }
};

// What the threads of a group found, whose numbers differ by multiples of `across`. The first of them
// returns it.
template <class Part>
__device__ __forceinline__ Part merged(Part part, int across) {
  Part* const parts = static_cast<Part*>(block_memory());
  const int me = int(threadIdx.x);
  for (int half = kBlock / 2; half >= across; half /= 2) {
    if (me >= half && me < 2 * half) parts[me] = part;
    __syncthreads();
    if (me < half) part.merge(parts[me + half]);
  }
  return part;
}

// Leaves a part of neighbouring channels in a workspace [fields][channels][slices].
template <class Part>
__device__ __forceinline__ void save(float* workspace, Part& part, int64_t channels, int64_t slices, int64_t channel,
                                     int64_t slice) {
  part.each([&](int field, const auto& values) {
#pragma unroll
    for (int i = 0; i < int(sizeof values / sizeof(float)); ++i)
      workspace[(field * channels + channel + i) * slices + slice] = values.at[i];
  });
}

// The parts of all slices of the channel of this block. The first thread returns their sum.
template <class Part>
__device__ __forceinline__ Part all_slices(const float* workspace, int64_t channels, int64_t slices) {
  Part total = {};
  for (int64_t slice = threadIdx.x; slice < slices; slice += kBlock) {
    Part part;
    part.each([&](int field, Lanes<1>& value) {
      value.at[0] = workspace[(field * channels + blockIdx.x) * slices + slice];
    });
    total.merge(part);
  }
  return merged(total, 1);
}

}  // namespace
}  // namespace cuda
}  // namespace deal
