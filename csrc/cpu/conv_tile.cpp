// A tile there and back: rows, then columns two at a time, since a frequency and its conjugate lie in two columns.
#include "conv_tile.h"

#include "conv_pixels.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// Calls visit(number, row, column) for the frequencies that are kept of column u. Those of the first and the
// middle column have their conjugates in the same column.
template <int n, class Visit>
DEAL_INLINE void each_frequency(int u, const Visit& visit) {
  constexpr int half = n / 2;
  if (u % half) {
    for (int v = 0; v < n; ++v) visit((u - 1) * n + v, v);
  } else {
    const int before = (half - 1) * n + (u ? half + 1 : 0);
    for (int v = 0; v <= half; ++v) visit(before + v, v);
  }
}

template <Planes planes>
DEAL_INLINE void put(float* to, int64_t plane, vector_f re, vector_f im, float scale) {
  const auto write = [=](int i, vector_f a) DEAL_FLAT { store(to + i * plane, Pack<float>{a}); };
  if constexpr (planes == Planes::weights) {
    re *= scale, im *= scale;
    write(0, -im - re), write(1, re - im), write(2, re);
  } else {
    write(0, re), write(1, im);
  }
}

// The spectra of the first and the second half from those of both, at a frequency and at its mirror's place.
template <int n, Planes planes>
void separate(int u, const Complex* column, const Complex* mirrored, const Place& to, int64_t padded) {
  each_frequency<n>(u, [&](int number, int v) DEAL_FLAT {
    const Complex a = read(column + v), b = read(mirrored + ((n - v) & (n - 1)));
    float* const at = to.at + number * to.apart;
    constexpr float scale = 1.0f / (4 * n * n);
    put<planes>(at, to.plane, a.re + b.re, a.im - b.im, scale);
    put<planes>(at + padded, to.plane, a.im + b.im, b.re - a.re, scale);
  });
}

// Real and imaginary parts are exchanged, for the inverse transform.
template <int n>
void join(int u, const Place& from, int64_t padded, Complex* column, Complex* mirrored) {
  each_frequency<n>(u, [&](int number, int v) DEAL_FLAT {
    const float* const at = from.at + number * from.apart;
    const vector_f re = load(at).v, im = load(at + from.plane).v;
    const vector_f other_re = load(at + padded).v, other_im = load(at + from.plane + padded).v;
    write(mirrored + ((n - v) & (n - 1)), {other_re - im, re + other_im});
    write(column + v, {im + other_re, re - other_im});
  });
}

// Columns are a little further apart than they are long, lest they compete for the same places of a cache.
template <int n>
using Grid = Complex[n][n + 1];

template <int n, Planes planes>
void analyse(const Source& s, const Place& to) {
  const Halves halves(s.channels);
  Grid<n> grid;
  Complex row[n], one[n], other[n];
  for (int64_t group = 0; group < halves.padded; group += kLanes) {
    for (int y = 0; y < n; ++y) {
      if (s.rows.at[y] < 0) {
        for (int u = 0; u < n; ++u) write(&grid[u][y], Complex{});
        continue;
      }
      read_row(s, halves, group, n, s.rows.at[y], row);
      transform<n>(row, 1, &grid[0][y], n + 1);
    }
    const Place place = {to.at + group, to.apart, to.plane};
    for (int u = 0; u <= n / 2; ++u) {
      transform<n>(grid[u], 1, one, 1);
      const bool alone = u % (n / 2) == 0;
      if (!alone) transform<n>(grid[n - u], 1, other, 1);
      separate<n, planes>(u, one, alone ? one : other, place, halves.padded);
    }
  }
}

template <int n>
void synthesise(const Place& from, const Sink& s) {
  const Halves halves(s.channels);
  Grid<n> grid;
  Complex row[n], one[n], other[n];
  for (int64_t group = 0; group < halves.padded; group += kLanes) {
    const Place place = {from.at + group, from.apart, from.plane};
    for (int u = 0; u <= n / 2; ++u) {
      const bool alone = u % (n / 2) == 0;
      join<n>(u, place, halves.padded, one, alone ? one : other);
      transform<n>(one, 1, grid[u], 1);
      if (!alone) transform<n>(other, 1, grid[n - u], 1);
    }
    for (int y = 0; y < s.rows; ++y) {
      transform<n>(&grid[0][y], n + 1, row, 1);
      for (Complex& pixel : row) write(&pixel, {pixel.im, pixel.re});
      write_row(row, halves, group, s, y);
    }
  }
}

}  // namespace

void analyse(int tile, const Source& s, Planes planes, const Place& to) {
  if (planes == Planes::weights) tile == 16 ? analyse<16, Planes::weights>(s, to) : analyse<32, Planes::weights>(s, to);
  else tile == 16 ? analyse<16, Planes::pixels>(s, to) : analyse<32, Planes::pixels>(s, to);
}

void synthesise(int tile, const Place& from, const Sink& s) {
  tile == 16 ? synthesise<16>(from, s) : synthesise<32>(from, s);
}

}  // namespace DEAL_ISA
}  // namespace deal
