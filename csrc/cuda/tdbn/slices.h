// Reductions over the channels of a tensor [steps][rows][channels][inner]: how it is cut into slices, and how the
// threads of a block merge their results. The order is fixed: the same input gives the same bits.
#pragma once
#include "rows.h"
#include "../common/launch.h"

namespace deal {
namespace cuda {
namespace {

constexpr int64_t kAcross = 128;  // neighbouring elements that a block should cover
constexpr int64_t kManyBlocks = 2048;  // slices get longer only if so many blocks remain
constexpr int64_t kLeastValues = 4096, kMostValues = 32768;  // of a slice, over all channels and steps of a block
constexpr int64_t kMostSlices = 2048;
constexpr int kMostGroups = 32;  // groups of a block, so that each has a few threads

// How many neighbouring channels a block takes, a power of two: several if rows have few elements of each.
inline int64_t neighbours(int64_t channels, int64_t inner) {
  int64_t count = 1;
  while (count < channels && count * inner < kAcross) count *= 2;
  return count;
}

// The number of values of a channel in a step and a slice: a multiple of every word.
inline int64_t slice_values(const TdbnInput& a) {
  const int64_t even = a.steps * a.neurons / kManyBlocks;
  const int64_t of_block = even < kLeastValues ? kLeastValues : even > kMostValues ? kMostValues : even;
  const int64_t wanted = of_block / (neighbours(a.channels, a.inner) * a.steps);
  const int64_t few = divided_up(a.neurons / a.channels, kMostSlices);
  return divided_up(few > wanted ? few : wanted > 1 ? wanted : 1, 8) * 8;
}

inline int64_t slices_of(const TdbnInput& a) { return divided_up(a.neurons / a.channels, slice_values(a)); }

// A group is one channel or, where a word has one value of each channel, the channels of a word. A block takes a slice
// of a few neighbouring groups at all steps.
struct Slicing {
  int64_t groups, blocks;  // groups of a row, and blocks that share them
  int64_t slices;
  int64_t words, each;   // words of a group in a step, and in a slice
  int64_t words_of_row;  // words of a group in a row
  int64_t words_on, on;  // from a word of a thread to its next: in words within a row, and in elements
  int64_t to_next_row;   // from the end of a group to its start in the next row, in elements
  int across;            // groups of a block, a power of two
};

// L elements are a word, all of one channel (`together`) or each of another.
inline Slicing slicing_of(const TdbnInput& a, int L, bool together) {
  const int64_t pitch = pitch_of(a), values = rows_of(a) * a.inner;
  const int channels = together ? 1 : L, values_of_word = L / channels;
  int64_t across = neighbours(a.channels, a.inner) / channels;
  across = across < 1 ? 1 : across > kMostGroups ? kMostGroups : across;
  Slicing slicing = {};
  slicing.across = int(across);
  slicing.groups = a.channels / channels;
  slicing.blocks = divided_up(slicing.groups, across);
  slicing.slices = slices_of(a);
  slicing.words = values / values_of_word;
  slicing.each = slice_values(a) / values_of_word;
  slicing.words_of_row = a.inner / values_of_word;
  const int64_t walkers = kBlock / across;
  slicing.words_on = walkers % slicing.words_of_row;
  slicing.on = walkers / slicing.words_of_row * pitch + slicing.words_on * L;
  slicing.to_next_row = pitch - slicing.words_of_row * L;
  return slicing;
}

// Iterates over a thread's words of a group in a slice of a step.
struct SliceWalk {
  int64_t at;    // offset of the word in the step, in elements
  int64_t word;  // index of the word in its row
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

// Merges the results of the threads of a group, whose indices differ by multiples of `across`. The first of these
// threads gets the result.
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

// Saves the partial results of neighbouring channels in a workspace [fields][channels][slices].
template <class Part>
__device__ __forceinline__ void save(float* workspace, Part& part, int64_t channels, int64_t slices, int64_t channel,
                                     int64_t slice) {
  part.each([&](int field, const auto& values) {
#pragma unroll
    for (int i = 0; i < int(sizeof values / sizeof(float)); ++i)
      workspace[(field * channels + channel + i) * slices + slice] = values.at[i];
  });
}

// Merges all slices of this block's channel. The first thread gets the result.
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
