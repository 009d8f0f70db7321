// The boundary of the convolution. Images are [batch, channels, height, width] of float32, side by side or channels
// last. out(p) = the sum over the kernel's places k of weight(k) * padded(p + dilation * k), without a stride.
#pragma once
#include <cstdint>

namespace deal {

enum class Padding : int { zeros, reflect, replicate };

struct Conv {
  int64_t batch, in_channels, out_channels;
  int64_t height, width;  // of the input
  int64_t kernel_h, kernel_w, dilation_h, dilation_w;
  int64_t top, bottom, left, right;  // padding; a reflected one is smaller than the image
  Padding mode;
  int tile;  // edge of the tiles that are transformed: 16 or 32, no less than the kernel's, or 6 for kernels of 3 x 3
  bool channels_last;

  int64_t out_height() const { return height + top + bottom - dilation_h * (kernel_h - 1); }
  int64_t out_width() const { return width + left + right - dilation_w * (kernel_w - 1); }
};

// The weights as the tiles' products take them. Transposed, they are those of the input's gradient.
struct ConvSpectrum {
  int64_t in_channels, out_channels, kernel_h, kernel_w;  // of the weights
  int tile;
  bool transposed;
  const float* weight;  // [out_channels, in_channels, kernel_h, kernel_w]
  float* spectrum;      // conv_spectrum_floats of them; of the swapped channels when transposed
};

struct ConvForward : Conv {
  const float* x;
  const float* spectrum;
  const float* bias;      // [out_channels], or null
  const float* residual;  // like out, or null: added before the activation
  bool relu;
  float* out;
};

// What is null is not wanted.
struct ConvBackward : Conv {
  const float* x;         // where the weights' gradient is wanted
  const float* grad;      // like out
  const float* out;       // the result, where it has been through a relu
  const float* spectrum;  // transposed, where the input's gradient is wanted
  float* grad_x;
  float* grad_weight;    // like the weights
  float* grad_bias;      // [out_channels]
  float* grad_residual;  // like out: grad where the relu let it through
};

// Winograd's transform, which gives real numbers at 6 x 6 points. Forward alone.
inline bool is_winograd(int tile) { return tile == 6; }

// Frequencies of a tile of real numbers that say all: the others are their conjugates.
inline int64_t conv_frequencies(int tile) { return is_winograd(tile) ? tile * tile : int64_t(tile) * tile / 2 + 2; }

// Numbers that say a weight at a frequency.
inline int64_t conv_planes(int tile) { return is_winograd(tile) ? 1 : 3; }

// Room for a spectrum: its numbers for each frequency and pair of channels, the outputs' halves filled up to the
// widest vectors.
inline int64_t conv_spectrum_floats(int64_t in_channels, int64_t out_channels, int tile) {
  const int64_t half = ((out_channels + 1) / 2 + 15) / 16 * 16;
  return conv_frequencies(tile) * conv_planes(tile) * in_channels * 2 * half;
}

}  // namespace deal
