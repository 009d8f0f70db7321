#pragma once
#include <cstdint>
#include <cstring>

struct __half {
  uint16_t bits;
};

inline float __half2float(__half a) {
  uint32_t bits = uint32_t(a.bits & 0x7fff) << 13;
  float magnitude;
  std::memcpy(&magnitude, &bits, sizeof bits);
  magnitude *= 0x1p112f;  // moves the exponent bias from 15 to 127, subnormals included
  std::memcpy(&bits, &magnitude, sizeof bits);
  if ((a.bits & 0x7c00) == 0x7c00) bits = uint32_t(a.bits & 0x7fff) << 13 | 0x7f800000u;
  bits |= uint32_t(a.bits & 0x8000) << 16;
  std::memcpy(&magnitude, &bits, sizeof bits);
  return magnitude;
}

inline __half __float2half_rn(float a) {
  uint32_t bits;
  std::memcpy(&bits, &a, sizeof bits);
  const uint16_t sign = bits >> 16 & 0x8000;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return {uint16_t(sign | 0x7e00)};
  if (bits >= 0x477ff000u) return {uint16_t(sign | 0x7c00)};
  if (bits >= 0x38800000u) return {uint16_t(sign | (bits - 0x38000000u + 0xfff + (bits >> 13 & 1)) >> 13)};
  // Below 2^-14 the sum with 0.5 rounds to the 2^-24 grid of the subnormals.
  float magnitude;
  std::memcpy(&magnitude, &bits, sizeof bits);
  magnitude += 0.5f;
  std::memcpy(&bits, &magnitude, sizeof bits);
  return {uint16_t(sign | (bits - 0x3f000000u))};
}
