// Convolution for Python.
#pragma once
#include "call.h"

namespace deal {
namespace bindings {

// Defines a function of a convolution's shape and of what run(shape, more...) takes besides.
template <class... More, class Run>
void define_conv(py::module_& m, const char* name, const Run& run) {
  m.def(
      name,
      [run](int64_t batch, int64_t in_channels, int64_t out_channels, int64_t height, int64_t width, int64_t kernel_h,
            int64_t kernel_w, int64_t dilation_h, int64_t dilation_w, int64_t top, int64_t bottom, int64_t left,
            int64_t right, int mode, int tile, bool channels_last, More... more) {
        const Conv shape = {batch, in_channels, out_channels, height, width, kernel_h, kernel_w, dilation_h, dilation_w,
                            top, bottom, left, right, Padding(mode), tile, channels_last};
        return run(shape, more...);
      },
      ReleaseGil());
}

inline void define_conv(py::module_& m) {
  m.def("conv_spectrum_floats", &conv_spectrum_floats);
  m.def(
      "conv_spectrum",
      [](int64_t in_channels, int64_t out_channels, int64_t kernel_h, int64_t kernel_w, int tile, bool transposed,
         Address weight, Address spectrum, int threads) {
        kernels().conv_spectrum({in_channels, out_channels, kernel_h, kernel_w, tile, transposed,
                                 pointer<float>(weight), pointer<float>(spectrum)},
                                threads);
      },
      ReleaseGil());
  define_conv(m, "conv_tile", &conv_tile);
  define_conv<Address, Address, Address, Address, bool, Address, int>(
      m, "conv_forward",
      [](const Conv& shape, Address x, Address spectrum, Address bias, Address residual, bool relu, Address out,
         int threads) {
        kernels().conv_forward({shape, pointer<float>(x), pointer<float>(spectrum), pointer<float>(bias),
                                pointer<float>(residual), relu, pointer<float>(out)},
                               threads);
      });
  define_conv<Address, Address, Address, Address, Address, Address, Address, Address, int>(
      m, "conv_backward",
      [](const Conv& shape, Address x, Address grad, Address out, Address spectrum, Address grad_x, Address grad_weight,
         Address grad_bias, Address grad_residual, int threads) {
        kernels().conv_backward({shape, pointer<float>(x), pointer<float>(grad), pointer<float>(out),
                                 pointer<float>(spectrum), pointer<float>(grad_x), pointer<float>(grad_weight),
                                 pointer<float>(grad_bias), pointer<float>(grad_residual)},
                                threads);
      });
}

}  // namespace bindings
}  // namespace deal
