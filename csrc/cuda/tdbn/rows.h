// A tensor seen as rows of all channels: [steps][rows][channels][inner].
#pragma once
#include "../../types.h"
#include "../common/memory.h"

namespace deal {
namespace cuda {
namespace {

template <class T>
constexpr int kWord = 16 / int(sizeof(T));  // elements of a thread if rows consist of whole words, otherwise 1

inline int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t pitch_of(const TdbnInput& a) { return a.channels * a.inner; }
inline int64_t rows_of(const TdbnInput& a) { return a.neurons / pitch_of(a); }

// Joins contiguous steps into one step with more rows.
template <class Call>
Call joined(Call a) {
  if (a.steps > 1 && a.time_stride != a.neurons) return a;
  a.neurons *= a.steps;
  a.steps = 1;
  a.time_stride = a.neurons;
  return a;
}

// Whether x and the other tensors may be accessed in words.
template <class T, class... Others>
bool allows_words(const TdbnInput& a, Others... others) {
  return pitch_of(a) % kWord<T> == 0 && a.time_stride % kWord<T> == 0 && allows<T>(kWord<T>, a.x) &&
         (allows<T>(kWord<T>, others) && ...);
}

}  // namespace
}  // namespace cuda
}  // namespace deal
