// Numbers in memory: storage types, and their transfer in words of up to 16 bytes.
//
// A thread has L neighbouring neurons and moves them W at a time. With W > 1 every row must start on
// a word and hold whole words; W == L then means that no thread has fewer than L neurons.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

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

// The neurons of a thread as they were stored: half types take half the registers until they are used.
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

// Inputs are read once. Marking them so leaves the second-level cache to the results, which the next
// layer reads.
template <int W, int L, class T>
__device__ __forceinline__ Stored<T, L> load(const T* p, int64_t left) {
  using Word = word_t<T, W>;
  constexpr int words = L * int(sizeof(T)) / int(sizeof(Word));
  constexpr int each = L / words;
  Word raw[words] = {};
#pragma unroll
  for (int i = 0; i < words; ++i)
    if (L == W || i * each < left) raw[i] = __ldcs(reinterpret_cast<const Word*>(p) + i);
  Stored<T, L> result;
  __builtin_memcpy(static_cast<void*>(&result), raw, sizeof raw);
  return result;
}

template <int W, int L>
__device__ __forceinline__ Lanes<L> load(const void* p, int64_t first, int64_t left) {
  return widen(load<W, L>(static_cast<const float*>(p) + first, left));
}

template <int W, int L, class T>
__device__ __forceinline__ void store(T* p, const Lanes<L>& a, int64_t left) {
  using Word = word_t<T, W>;
  constexpr int words = L * int(sizeof(T)) / int(sizeof(Word));
  constexpr int each = L / words;
  Stored<T, L> stored;
#pragma unroll
  for (int i = 0; i < L; ++i) narrow(a.at[i], stored.at[i]);
  Word raw[words];
  __builtin_memcpy(raw, static_cast<const void*>(&stored), sizeof raw);
#pragma unroll
  for (int i = 0; i < words; ++i)
    if (L == W || i * each < left) reinterpret_cast<Word*>(p)[i] = raw[i];
}

// Whether W elements at a time may be moved from and to this address; null moves nothing.
template <class T>
bool allows(int W, const void* p) {
  return reinterpret_cast<uintptr_t>(p) % word_bytes(W * int(sizeof(T))) == 0;
}

}  // namespace cuda
}  // namespace deal
