// Fourier transforms of length 16 and 32, one per lane of a vector. The inverse transform is the same with real and
// imaginary parts exchanged, in the input and in the output.
#pragma once
#include "../common/simd.h"

namespace deal {
namespace DEAL_ISA {

struct Complex {
  vector_f re, im;
};

// Copies each part on its own: compilers copy the whole struct in smaller pieces, which stall the next vector load.
DEAL_INLINE Complex read(const Complex* p) { return {p->re, p->im}; }
DEAL_INLINE void write(Complex* p, Complex a) { p->re = a.re, p->im = a.im; }

DEAL_INLINE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
DEAL_INLINE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
DEAL_INLINE Complex turned(Complex a) { return {a.im, -a.re}; }  // times -i

namespace {

constexpr float kCosines[] = {1.0f,         0.980785280f, 0.923879533f, 0.831469612f, 0.707106781f,
                              0.555570233f, 0.382683432f, 0.195090322f, 0.0f};  // cos(2 pi k / 32)

constexpr float cosine(int k) {
  k &= 31;
  return k > 16 ? cosine(32 - k) : k > 8 ? -kCosines[16 - k] : kCosines[k];
}

template <int n>
struct Twiddles {
  float re[4][n / 4], im[4][n / 4];
};

template <int n>
constexpr Twiddles<n> twiddles() {
  Twiddles<n> w = {};
  for (int j = 0; j < 4; ++j)
    for (int k = 0; k < n / 4; ++k) {
      w.re[j][k] = cosine(32 / n * j * k);
      w.im[j][k] = cosine(32 / n * j * k + 8);
    }
  return w;
}

// Fourier transforms of 4 and of 8 numbers in place.
DEAL_INLINE void fourier(Complex& a, Complex& b, Complex& c, Complex& d) {
  const Complex sum = a + c, difference = a - c, other = b + d, across = turned(b - d);
  a = sum + other, b = difference + across, c = sum - other, d = difference - across;
}

DEAL_INLINE void both(Complex& a, Complex& b) {
  const Complex sum = a + b;
  b = a - b, a = sum;
}

// The results are in the order a, c, e, g, b, d, f, h.
DEAL_INLINE void fourier(Complex& a, Complex& b, Complex& c, Complex& d, Complex& e, Complex& f, Complex& g,
                         Complex& h) {
  fourier(a, c, e, g);
  fourier(b, d, f, h);
  constexpr float r = kCosines[4];
  d = {(d.re + d.im) * r, (d.im - d.re) * r};
  f = turned(f);
  h = {(h.im - h.re) * r, (h.re + h.im) * -r};
  both(a, b), both(c, d), both(e, f), both(g, h);
}

// The numbers are from_step apart in the input and to_step apart in the output.
template <int n>
__attribute__((noinline)) void transform(const Complex* from, int64_t from_step, Complex* to, int64_t to_step) {
  static constexpr Twiddles<n> w = twiddles<n>();
  constexpr int many = n / 4;
  Complex between[many][4];
  for (int j = 0; j < 4; ++j) {
    const auto at = [&](int m) DEAL_FLAT { return read(from + (j + 4 * m) * from_step); };
    const auto put = [&](int k, Complex a) DEAL_FLAT {
      const float re = w.re[j][k], im = w.im[j][k];
      write(&between[k][j], {a.re * re - a.im * im, a.re * im + a.im * re});
    };
    Complex a = at(0), b = at(1), c = at(2), d = at(3);
    if constexpr (n == 16) {
      fourier(a, b, c, d);
      put(1, b), put(2, c), put(3, d);
    } else {
      Complex e = at(4), f = at(5), g = at(6), h = at(7);
      fourier(a, b, c, d, e, f, g, h);
      put(1, c), put(2, e), put(3, g), put(4, b), put(5, d), put(6, f), put(7, h);
    }
    write(&between[0][j], a);
  }
  for (int k = 0; k < many; ++k) {
    Complex a = read(&between[k][0]), b = read(&between[k][1]), c = read(&between[k][2]), d = read(&between[k][3]);
    fourier(a, b, c, d);
    write(to + k * to_step, a);
    write(to + (k + many) * to_step, b);
    write(to + (k + 2 * many) * to_step, c);
    write(to + (k + 3 * many) * to_step, d);
  }
}

}  // namespace
}  // namespace DEAL_ISA
}  // namespace deal
