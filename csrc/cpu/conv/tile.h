// Tiles of n x n pixels and their spectra. The lanes of a vector are channels. The first half of the channels are the
// real parts and the second half the imaginary parts of one transform, whose results are separated afterwards. Of each
// pair of conjugate frequencies only one is kept.
#pragma once
#include "../../math/spectrum.h"
#include "../../types.h"
#include "fft.h"

namespace deal {
namespace DEAL_ISA {

constexpr int kMostTile = 32;

// The channels of a spectrum: two halves, each padded with zeros to whole vectors.
struct Halves {
  explicit Halves(int64_t channels)
      : first((channels + 1) / 2),
        second(channels - first),
        padded((first + Pack<float>::lanes - 1) / Pack<float>::lanes * Pack<float>::lanes) {}
  int64_t first, second, padded;
  int64_t both() const { return 2 * padded; }
};

// Strides of an image.
struct Steps {
  int64_t channel, row, column;
};

// The pixels of a tile along one axis: their positions in the image, or -1 for zero. Those from `begin` to `end` are
// `step` apart.
struct Axis {
  int at[kMostTile];
  int begin, end, step;

  // Whether none of the first `count` is zero padding.
  bool inside(int count) const {
    int least = 0;
    for (int i = 0; i < count; ++i) least = at[i] < least ? at[i] : least;
    return least == 0;
  }
};

struct Source {
  const float* image;
  const float* mask;  // may be null; where it is not above zero, the image is taken as zero
  int64_t channels;
  Steps steps;
  Axis rows, columns;
};

// Pixels around an image, stored contiguously: the rows above, the rows below, then both ends of the rows between.
struct Frame {
  float* pixels;  // [.., channels]
  int64_t top, bottom, left, right, height, width;

  int64_t count() const { return (top + bottom) * (left + width + right) + height * (left + right); }
  int64_t index(int64_t y, int64_t x) const {
    if (y < 0) return (y + top) * (left + width + right) + x + left;
    if (y >= height) return (y + top - height) * (left + width + right) + x + left;
    return (top + bottom) * (left + width + right) + y * (left + right) + (x < 0 ? x + left : x - width + left);
  }
};

struct Sink {
  float* image;
  const float* bias;      // may be null
  const float* residual;  // like the image; may be null
  bool relu;
  int64_t channels;
  Steps steps;
  int64_t y, x, y_step, x_step;  // first pixel, and the distance to the next
  int rows, columns;             // how many to write
  const Frame* frame;            // receives pixels outside of the image; may be null
};

// The planes of a spectrum. Pixels have two, (r, i). Weights, which are conjugated and scaled, have three, w = (i - r,
// r + i, r), so that a complex product takes three real ones: with k0 = xr * w0, k1 = xi * w1, k2 = (xr + xi) * w2 it
// is (k2 - k1, k2 + k0). Winograd's are real and have one plane.
enum class Planes { pixels, weights };

// A spectrum in memory. Frequencies are `apart` apart, planes `plane`.
struct Spectrum {
  float* at;
  int64_t apart, plane;
};

void analyse(int tile, const Source&, Planes, const Spectrum&);
void synthesise(int tile, const Spectrum&, const Sink&);

}  // namespace DEAL_ISA
}  // namespace deal
