// Converts rows of pixels between their storage type and the type S of the computation. Buffers of S are padded to
// whole vectors.
#pragma once
#include "../../types.h"
#include "simd.h"

namespace deal {
namespace DEAL_ISA {
namespace {

template <class S, class T>
void read_row(const T* from, S* to, int count) {
  constexpr int lanes = Pack<S>::lanes;
  int i = 0;
  for (; i + lanes <= count; i += lanes) store(to + i, load(from + i));
  if (i == count) return;
  T rest[lanes] = {};
  __builtin_memcpy(rest, from + i, sizeof(T) * size_t(count - i));
  store(to + i, load(rest));
}

template <class S, class T>
void write_row(const S* from, T* to, int count) {
  constexpr int lanes = Pack<S>::lanes;
  int i = 0;
  for (; i + lanes <= count; i += lanes) store(to + i, load(from + i));
  if (i == count) return;
  T rest[lanes];
  store(rest, load(from + i));
  __builtin_memcpy(to + i, rest, sizeof(T) * size_t(count - i));
}

template <class S>
void read_row(DType dtype, const void* from, int64_t at, S* to, int count) {
  if constexpr (sizeof(S) == 8) return read_row(static_cast<const S*>(from) + at, to, count);
  else if (dtype == DType::float32) return read_row(static_cast<const S*>(from) + at, to, count);
  else if (dtype == DType::float16) return read_row(static_cast<const Half*>(from) + at, to, count);
  else return read_row(static_cast<const BFloat*>(from) + at, to, count);
}

template <class S>
void write_row(DType dtype, const S* from, void* to, int64_t at, int count) {
  if constexpr (sizeof(S) == 8) return write_row(from, static_cast<S*>(to) + at, count);
  else if (dtype == DType::float32) return write_row(from, static_cast<S*>(to) + at, count);
  else if (dtype == DType::float16) return write_row(from, static_cast<Half*>(to) + at, count);
  else return write_row(from, static_cast<BFloat*>(to) + at, count);
}

template <class S>
void clear(S* row, int begin, int end) {
  if (begin < end) __builtin_memset(row + begin, 0, sizeof(S) * size_t(end - begin));
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
