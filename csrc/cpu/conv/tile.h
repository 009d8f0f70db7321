// Tiles of n x n pixels and their spectra. TdbnInput are the lanes: those of the first half of them are real parts,
// those of the second half imaginary parts of one transform, whose results are told apart afterwards. Only frequencies
// whose conjugates are not there already are kept.
#pragma once
#include "../../math/spectrum.h"
#include "../../types.h"
#include "fft.h"

namespace deal {
namespace DEAL_ISA {

constexpr int kMostTile = 32;

// TdbnInput in memory: two halves, each filled up with zeros to whole vectors.
struct Halves {
  explicit Halves(int64_t channels)
      : first((channels + 1) / 2),
        second(channels - first),
        padded((first + Pack<float>::lanes - 1) / Pack<float>::lanes * Pack<float>::lanes) {}
  int64_t first, second, padded;
  int64_t both() const { return 2 * padded; }
};

// Where numbers lie: steps between channels, rows and columns.
struct Steps {
  int64_t channel, row, column;
};

// The pixels of a tile along one axis: their places in the image, or -1 for a zero. Those from `begin` to `end` lie
// `step` apart.
struct Axis {
  int at[kMostTile];
  int begin, end, step;

  // Whether the first `count` of them are pixels of the image.
  bool inside(int count) const {
    int least = 0;
    for (int i = 0; i < count; ++i) least = at[i] < least ? at[i] : least;
    return least == 0;
  }
};

struct Source {
  const float* image;
  const float* mask;  // or null; where it is not above zero the image counts as zero
  int64_t channels;
  Steps steps;
  Axis rows, columns;
};

// Pixels outside of an image, as they are beside each other: the rows above, those below, then both ends of the others.
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
  const float* bias;      // or null
  const float* residual;  // or null; like the image
  bool relu;
  int64_t channels;
  Steps steps;
  int64_t y, x, y_step, x_step;  // of the first pixel, and on to the next
  int rows, columns;             // that are wanted
  const Frame* frame;            // takes pixels that are not in the image; or null
};

// Two planes of a spectrum, (r, i); of weights, which are conjugated and scaled, the three that make a complex product
// of three. With k[0], k[1], k[2] the products of r, i, r + i and weights (r, i) as i - r, r + i, r, it is
// (k[2] - k[1], k[2] + k[0]). Winograd's are real, and have one plane.
enum class Planes { pixels, weights };

// A spectrum in memory: number `apart` of a frequency, `plane` of a plane.
struct Spectrum {
  float* at;
  int64_t apart, plane;
};

void analyse(int tile, const Source&, Planes, const Spectrum&);
void synthesise(int tile, const Spectrum&, const Sink&);

}  // namespace DEAL_ISA
}  // namespace deal
