// Neurons in tiles and segments: the neurons a thread processes at a time, and the steps that it runs them for at once.
#pragma once
#include "channels.h"
#include "pair.h"
#include "parallel.h"

namespace deal {
namespace DEAL_ISA {
namespace {

constexpr int kTile = 512;  // most neurons of a tile

// Four vectors of neurons are processed together: each step depends on the one before, and four independent chains hide
// the latency.
template <class S>
using Quad = Pair<Pair<Pack<S>>>;
template <class S>
constexpr int kQuad = Quad<S>::lanes;

// Calls next(kind), compiled separately for each of these values of a field, and once for all others.
template <auto field, auto... values, class Next>
DEAL_INLINE void split(const Neuron& kind, const Next& next) {
  const auto value = kind.*field;
  const auto fixed = [&](auto constant) DEAL_FLAT {
    Neuron known = kind;
    known.*field = constant;
    next(known);
  };
  if (!((value == values ? (fixed(values), true) : false) || ...)) next(kind);
}

// One value per neuron of a tile.
template <class S>
struct Row {
  alignas(64) S at[kTile];
  char skew[192];  // rows a power of two apart would map to the same cache sets
};

template <class S>
DEAL_INLINE S shared(const Parameter& p, double constant) {
  return p.data ? *static_cast<const S*>(p.data) : S(constant);
}

template <class T, class V>
DEAL_INLINE void put(T* p, const V& x, bool streaming) {
  if (streaming) stream(p, x);
  else store(p, x);
}

constexpr int kSegment = 16;  // steps that a tile is run for at once

// A range of steps.
struct Segment {
  int64_t from;
  int steps;

  // The index-th of a call's segments.
  template <class Call>
  DEAL_INLINE Segment(const Call& a, int64_t index)
      : from(index * kSegment), steps(int(a.steps - from < kSegment ? a.steps - from : kSegment)) {}
};

template <class Call>
DEAL_INLINE int64_t segments(const Call& a) {
  return (a.steps - 1) / kSegment + 1;
}

// The input currents of neighbouring neurons at the steps of a segment. Rows are far apart in memory, so each read also
// prefetches what this thread reads later: the next segment, or the neurons of the next tile.
template <class T, class V>
struct Currents {
  const T* x;
  int64_t stride, ahead;

  DEAL_INLINE V operator()(int step) const {
    prefetch<V>(x + step * stride + ahead);
    return read<V>(x + step * stride);
  }
};

constexpr int64_t kElementsWorthAThread = 65536;

// Whether loops are compiled separately for each kind of neuron. Not for double, which only serves gradient checks, nor
// for x86 processors without AVX2.
#if defined(__x86_64__) && !defined(__AVX2__)
template <class S>
constexpr bool kCopies = false;
#else
template <class S>
constexpr bool kCopies = sizeof(S) == 4;
#endif

// The neurons of a group that make up whole Quads. The others are its tail.
template <class S>
DEAL_INLINE int64_t whole_of(int64_t group) {
  return group / kQuad<S> * kQuad<S>;
}

// Calls visit(first neuron, neurons) for tiles of `most` neurons, or fewer at the end of a group. The neurons from
// begin to end are counted without the tails.
template <class S, class Call, class Visit>
void each_tile(const Call& a, int64_t most, int64_t begin, int64_t end, const Visit& visit) {
  const int64_t whole = whole_of<S>(a.group);
  int64_t skipped = begin / whole * (a.group - whole);
  for (int64_t left = whole - begin % whole; begin < end; left = whole) {
    const int64_t stop = left < end - begin ? begin + left : end;
    for (; begin < stop; begin += most) visit(begin + skipped, stop - begin < most ? stop - begin : most);
    begin = stop;
    skipped += a.group - whole;
  }
}

// Runs the neurons of a call, which lie in groups of so many, on as many threads as are useful. Calls
// blocks(begin, end, thread) for the whole Quads of all groups, counted without tails, then last(first, thread) for the
// tail of each.
template <class T, class Call, class Blocks, class Last>
DEAL_INLINE void each_neuron(const Call& a, int64_t group, int threads, const Blocks& blocks, const Last& last) {
  const int64_t whole = whole_of<compute_t<T>>(group), groups = a.neurons / group;
  const int useful = useful_threads(a.neurons * a.steps, kElementsWorthAThread, threads);
  if (whole > 0) parallel_for(groups * whole, kTile, useful, blocks);
  if (whole == group) return;
  parallel_for(groups, 1, groups < useful ? int(groups) : useful, [&](int64_t begin, int64_t end, int thread) {
    for (; begin < end; ++begin) last(begin * group + whole, thread);
  });
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
