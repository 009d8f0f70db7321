// Sizes of the spectra that a convolution multiplies.
#pragma once
#include <cstdint>

namespace deal {

// Winograd's transform of a 6 x 6 tile has real values. It serves the forward pass alone.
inline bool is_winograd(int tile) { return tile == 6; }

// Frequencies that determine the spectrum of a real tile; the others are their conjugates.
inline int64_t conv_frequencies(int tile) { return is_winograd(tile) ? tile * tile : int64_t(tile) * tile / 2 + 2; }

// Floats per weight and frequency.
inline int64_t conv_planes(int tile) { return is_winograd(tile) ? 1 : 3; }

// Size of a spectrum: its values for each frequency and pair of channels, where each half of the output channels is
// padded to the widest vector.
inline int64_t conv_spectrum_floats(int64_t in_channels, int64_t out_channels, int tile) {
  const int64_t half = ((out_channels + 1) / 2 + 15) / 16 * 16;
  return conv_frequencies(tile) * conv_planes(tile) * in_channels * 2 * half;
}

}  // namespace deal
