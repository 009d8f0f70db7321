// Storage types, and loads and stores in words of up to 16 bytes.
//
// A thread has L neighbouring neurons and moves them W at a time. With W > 1 every row must start at a word boundary
// and consist of whole words. If W == L, every thread has exactly L neurons.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "../../types.h"
#include "lanes.h"

namespace deal {
namespace cuda {

__device__ __forceinline__ float widen(float a) { return a; }
__device__ __forceinline__ float widen(__half a) { return __half2float(a); }
__device__ __forceinline__ float widen(__nv_bfloat16 a) { return __bfloat162float(a); }
__device__ __forceinline__ void narrow(float a, float& to) { to = a; }
__device__ __forceinline__ void narrow(float a, __half& to) { to = __float2half_rn(a); }
__device__ __forceinline__ void narrow(float a, __nv_bfloat16& to) { to = __float2bfloat16_rn(a); }

template <int bytes>
struct WordOf;
template <>
struct WordOf<2> {
  using type = unsigned short;
};
template <>
struct WordOf<4> {
  using type = unsigned int;
};
template <>
struct WordOf<8> {
  using type = uint2;
};
template <>
struct WordOf<16> {
  using type = uint4;
};

constexpr int word_bytes(int bytes) { return bytes < 16 ? bytes : 16; }
template <class T, int W>
using word_t = typename WordOf<word_bytes(W * int(sizeof(T)))>::type;

// The neurons of a thread in their storage type: half types need half of the registers until they are used.
template <class T, int L>
struct Stored {
  T at[L];
};

template <class T, int L>
__device__ __forceinline__ Lanes<L> widen(const Stored<T, L>& a) {
  Lanes<L> result;
#pragma unroll
  for (int i = 0; i < L; ++i) result.at[i] = widen(a.at[i]);
  return result;
}

template <class T, int L>
__device__ __forceinline__ Stored<T, L> narrowed(const Lanes<L>& a) {
  Stored<T, L> result;
#pragma unroll
  for (int i = 0; i < L; ++i) narrow(a.at[i], result.at[i]);
  return result;
}

// Most inputs are read once. Marking them as such leaves the second-level cache to results, which the next layer reads,
// and to inputs that are read again.
enum class Use { once, again };

template <int W, int L, Use use = Use::once, class T>
__device__ __forceinline__ Stored<T, L> load(const T* p, int64_t left) {
  using Word = word_t<T, W>;
  constexpr int words = L * int(sizeof(T)) / int(sizeof(Word));
  constexpr int each = L / words;
  Word raw[words] = {};
#pragma unroll
  for (int i = 0; i < words; ++i) {
    const Word* const word = reinterpret_cast<const Word*>(p) + i;
    if (L == W || i * each < left) raw[i] = use == Use::once ? __ldcs(word) : *word;
  }
  Stored<T, L> result;
  __builtin_memcpy(static_cast<void*>(&result), raw, sizeof raw);
  return result;
}

template <int W, int L>
__device__ __forceinline__ Lanes<L> load(const void* p, int64_t first, int64_t left) {
  return widen(load<W, L>(static_cast<const float*>(p) + first, left));
}

template <int W, class T, int L>
__device__ __forceinline__ void store(T* p, const Stored<T, L>& stored, int64_t left) {
  using Word = word_t<T, W>;
  constexpr int words = L * int(sizeof(T)) / int(sizeof(Word));
  constexpr int each = L / words;
  Word raw[words];
  __builtin_memcpy(raw, static_cast<const void*>(&stored), sizeof raw);
#pragma unroll
  for (int i = 0; i < words; ++i)
    if (L == W || i * each < left) reinterpret_cast<Word*>(p)[i] = raw[i];
}

template <int W, int L, class T>
__device__ __forceinline__ void store(T* p, const Lanes<L>& a, int64_t left) {
  store<W>(p, narrowed<T>(a), left);
}

constexpr int kAhead = 4;  // rows that are read before the first of them is used

// The next rows, read ahead. Taking a row moves the others up, so that the long body of a loop over steps need not be
// unrolled.
template <class T, int L>
struct Queue {
  Stored<T, L> at[kAhead];

  template <int W, Use use = Use::once>
  __device__ __forceinline__ void read(const T* p, int64_t stride, int count, int64_t left) {
#pragma unroll
    for (int k = 0; k < kAhead; ++k, p += stride)
      if (k < count) at[k] = load<W, L, use>(p, left);
  }

  __device__ __forceinline__ Lanes<L> take() {
    const Lanes<L> head = widen(at[0]);
#pragma unroll
    for (int k = 1; k < kAhead; ++k) at[k - 1] = at[k];
    return head;
  }
};

// Whether W elements at a time may be moved from and to this address. Null is allowed: nothing is moved.
template <class T>
bool allows(int W, const void* p) {
  return reinterpret_cast<uintptr_t>(p) % word_bytes(W * int(sizeof(T))) == 0;
}

// Returns run(T{}) with the type of the elements.
template <class Run>
const char* with_type(DType dtype, const Run& run) {
  switch (dtype) {
    case DType::float32: return run(float{});
    case DType::float16: return run(__half{});
    case DType::bfloat16: return run(__nv_bfloat16{});
    default: return "the CUDA kernels have no float64";
  }
}

}  // namespace cuda
}  // namespace deal
