// Transforms of a tile and back: first rows, then two columns at a time, because a frequency and its conjugate are in
// two columns.
#include "tile.h"

#include "pixels.h"
#include "winograd.h"

namespace deal {
namespace DEAL_ISA {
namespace {

// Calls visit(number, row) for the frequencies of column u that are kept. Those of the first and the middle column have
// their conjugates in the same column.
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

// Separates the spectra of the two halves of the channels, from the joint spectrum at a frequency and at its mirror.
template <int n, Planes planes>
void separate(int u, const Complex* column, const Complex* mirrored, const Spectrum& to, int64_t padded) {
  each_frequency<n>(u, [&](int number, int v) DEAL_FLAT {
    const Complex a = read(column + v), b = read(mirrored + ((n - v) & (n - 1)));
    float* const at = to.at + number * to.apart;
    constexpr float scale = 1.0f / (4 * n * n);
    put<planes>(at, to.plane, a.re + b.re, a.im - b.im, scale);
    put<planes>(at + padded, to.plane, a.im + b.im, b.re - a.re, scale);
  });
}

// The inverse of separate(). Real and imaginary parts are exchanged, for the inverse transform.
template <int n>
void join(int u, const Spectrum& from, int64_t padded, Complex* column, Complex* mirrored) {
  each_frequency<n>(u, [&](int number, int v) DEAL_FLAT {
    const float* const at = from.at + number * from.apart;
    const vector_f re = load(at).v, im = load(at + from.plane).v;
    const vector_f other_re = load(at + padded).v, other_im = load(at + from.plane + padded).v;
    write(mirrored + ((n - v) & (n - 1)), {other_re - im, re + other_im});
    write(column + v, {im + other_re, re - other_im});
  });
}

// Columns are padded, so that they do not map to the same cache sets.
template <int n>
using Grid = Complex[n][n + 1];

template <int n, Planes planes>
void analyse(const Source& s, const Spectrum& to) {
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
    const Spectrum place = {to.at + group, to.apart, to.plane};
    for (int u = 0; u <= n / 2; ++u) {
      transform<n>(grid[u], 1, one, 1);
      const bool alone = u % (n / 2) == 0;
      if (!alone) transform<n>(grid[n - u], 1, other, 1);
      separate<n, planes>(u, one, alone ? one : other, place, halves.padded);
    }
  }
}

template <int n>
void synthesise(const Spectrum& from, const Sink& s) {
  const Halves halves(s.channels);
  Grid<n> grid;
  Complex row[n], one[n], other[n];
  for (int64_t group = 0; group < halves.padded; group += kLanes) {
    const Spectrum place = {from.at + group, from.apart, from.plane};
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

// Winograd's transform is real: the two halves of the channels are transformed independently. Where whole vectors of
// channels are contiguous, pixels are read directly, because a copy would cost too much for a tile this small.
template <Planes planes>
void analyse_winograd(const Source& s, const Spectrum& to) {
  constexpr int n = kWinograd, length = planes == Planes::weights ? 3 : n;
  const Halves halves(s.channels);
  const bool inside = !s.mask && s.columns.inside(length);
  Complex grid[n][n], row[n];
  const auto values = [](const auto& get, const auto& put) DEAL_FLAT {
    planes == Planes::weights ? winograd_weights(get, put) : winograd_pixels(get, put);
  };
  for (int64_t group = 0; group < halves.padded; group += kLanes) {
    const bool whole = inside && are_whole(halves, group, s.steps);
    for (int y = 0; y < length; ++y) {
      const auto put = [&](int u, Complex a) DEAL_FLAT { write(&grid[u][y], a); };
      if (s.rows.at[y] < 0) {
        for (int u = 0; u < n; ++u) put(u, Complex{});
      } else if (whole) {
        const float* const line = s.image + s.rows.at[y] * s.steps.row + group;
        const auto get = [&](int x) DEAL_FLAT {
          const float* const pixel = line + s.columns.at[x] * s.steps.column;
          return Complex{load(pixel).v, load(pixel + halves.first).v};
        };
        values(get, put);
      } else {
        read_row(s, halves, group, length, s.rows.at[y], row);
        values([&](int x) DEAL_FLAT { return read(row + x); }, put);
      }
    }
    for (int u = 0; u < n; ++u) {
      const Complex* const column = grid[u];
      float* const spectrum = to.at + u * n * to.apart + group;
      const auto put = [&](int v, Complex a) DEAL_FLAT {
        float* const at = spectrum + v * to.apart;
        store(at, Pack<float>{a.re}), store(at + halves.padded, Pack<float>{a.im});
      };
      values([&](int y) DEAL_FLAT { return read(column + y); }, put);
    }
  }
}

void synthesise_winograd(const Spectrum& from, const Sink& s) {
  constexpr int n = kWinograd, yields = 4;
  const Halves halves(s.channels);
  Complex grid[yields][n], row[yields];
  for (int64_t group = 0; group < halves.padded; group += kLanes) {
    const bool whole = s.columns == yields && are_whole(halves, group, s.steps);
    for (int u = 0; u < n; ++u) {
      const float* const spectrum = from.at + u * n * from.apart + group;
      const auto get = [&](int v) DEAL_FLAT {
        const float* const at = spectrum + v * from.apart;
        return Complex{load(at).v, load(at + halves.padded).v};
      };
      winograd_results(get, [&](int y, Complex a) DEAL_FLAT { write(&grid[y][u], a); });
    }
    const Pack<float> bias = whole && s.bias ? load(s.bias + group) : Pack<float>{};
    const Pack<float> other_bias = whole && s.bias ? load(s.bias + halves.first + group) : Pack<float>{};
    for (int y = 0; y < s.rows; ++y) {
      const Complex* const numbers = grid[y];
      const auto get = [&](int u) DEAL_FLAT { return read(numbers + u); };
      if (whole) {
        const int64_t line = (s.y + y * s.y_step) * s.steps.row + s.x * s.steps.column + group;
        winograd_results(get, [&](int x, Complex a) DEAL_FLAT {
          const int64_t pixel = line + x * s.x_step * s.steps.column;
          finish({a.re}, s, bias, pixel, 1, kLanes), finish({a.im}, s, other_bias, pixel + halves.first, 1, kLanes);
        });
      } else {
        winograd_results(get, [&](int x, Complex a) DEAL_FLAT { write(row + x, a); });
        write_row(row, halves, group, s, y);
      }
    }
  }
}

}  // namespace

void analyse(int tile, const Source& s, Planes planes, const Spectrum& to) {
  if (tile == kWinograd)
    planes == Planes::weights ? analyse_winograd<Planes::weights>(s, to) : analyse_winograd<Planes::pixels>(s, to);
  else if (planes == Planes::weights)
    tile == 16 ? analyse<16, Planes::weights>(s, to) : analyse<32, Planes::weights>(s, to);
  else tile == 16 ? analyse<16, Planes::pixels>(s, to) : analyse<32, Planes::pixels>(s, to);
}

void synthesise(int tile, const Spectrum& from, const Sink& s) {
  if (tile == kWinograd) synthesise_winograd(from, s);
  else tile == 16 ? synthesise<16>(from, s) : synthesise<32>(from, s);
}

}  // namespace DEAL_ISA
}  // namespace deal
