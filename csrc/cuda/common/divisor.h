// Division of indices by a number that is known at the launch.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace deal {
namespace cuda {

// A GPU has no instruction that divides integers. With l = ceil(log2 d), f = ceil(2^(63 + l) / d) exceeds its quotient by
// less than 1, so that for n < 2^63 n * f / 2^(63 + l) exceeds n / d by less than 1 / d: rounded down they are equal.
struct Divisor {
  int64_t by;
  uint64_t factor;
  int shift;

  explicit Divisor(int64_t number) : by(number), shift(0) {
    while (shift < 62 && (int64_t(1) << shift) < number) ++shift;
    const unsigned __int128 power = static_cast<unsigned __int128>(1) << (63 + shift);
    factor = uint64_t((power + uint64_t(number) - 1) / uint64_t(number));
  }

  __device__ __forceinline__ int64_t quotient(int64_t n) const {
    const unsigned __int128 product = static_cast<unsigned __int128>(uint64_t(n) << 1) * factor;
    return int64_t(uint64_t(product >> 64) >> shift);
  }
};

}  // namespace cuda
}  // namespace deal
