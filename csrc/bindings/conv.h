// Convolution for Python.
#pragma once
#include "../math/spectrum.h"
#include "call.h"

namespace deal {
namespace bindings {

inline void define_conv(py::module_& m) {
  py::enum_<Padding>(m, "Padding", local())
      .value("zeros", Padding::zeros)
      .value("reflect", Padding::reflect)
      .value("replicate", Padding::replicate);
  m.def("conv_spectrum_floats", &conv_spectrum_floats);
  py::class_<ConvSpectrum>(m, "ConvSpectrum", local())
      .def(py::init([](int64_t in_channels, int64_t out_channels, int64_t kernel_h, int64_t kernel_w, int tile,
                       bool transposed, Address weight, Address spectrum) {
             return ConvSpectrum{in_channels, out_channels, kernel_h, kernel_w, tile, transposed,
                                 pointer<float>(weight), pointer<float>(spectrum)};
           }),
           py::kw_only(), "in_channels"_a, "out_channels"_a, "kernel_h"_a, "kernel_w"_a, "tile"_a, "transposed"_a,
           "weight"_a, "spectrum"_a);
  py::class_<ConvForward>(m, "ConvForward", local())
      .def(py::init([](int64_t batch, int64_t in_channels, int64_t out_channels, int64_t height, int64_t width,
                       int64_t kernel_h, int64_t kernel_w, int64_t dilation_h, int64_t dilation_w, int64_t top,
                       int64_t bottom, int64_t left, int64_t right, Padding mode, int tile, bool channels_last,
                       Address x, Address spectrum, Address bias, Address residual, bool relu, Address out) {
             return ConvForward{{batch, in_channels, out_channels, height, width, kernel_h, kernel_w, dilation_h,
                                 dilation_w, top, bottom, left, right, mode, tile, channels_last},
                                pointer<float>(x),
                                pointer<float>(spectrum),
                                pointer<float>(bias),
                                pointer<float>(residual),
                                relu,
                                pointer<float>(out)};
           }),
           py::kw_only(), "batch"_a, "in_channels"_a, "out_channels"_a, "height"_a, "width"_a, "kernel_h"_a,
           "kernel_w"_a, "dilation_h"_a, "dilation_w"_a, "top"_a, "bottom"_a, "left"_a, "right"_a, "mode"_a, "tile"_a,
           "channels_last"_a, "x"_a, "spectrum"_a, "bias"_a = 0, "residual"_a = 0, "relu"_a = false, "out"_a);
  py::class_<ConvBackward>(m, "ConvBackward", local())
      .def(py::init([](int64_t batch, int64_t in_channels, int64_t out_channels, int64_t height, int64_t width,
                       int64_t kernel_h, int64_t kernel_w, int64_t dilation_h, int64_t dilation_w, int64_t top,
                       int64_t bottom, int64_t left, int64_t right, Padding mode, int tile, bool channels_last,
                       Address x, Address grad, Address out, Address spectrum, Address grad_x, Address grad_weight,
                       Address grad_bias, Address grad_residual) {
             return ConvBackward{{batch, in_channels, out_channels, height, width, kernel_h, kernel_w, dilation_h,
                                  dilation_w, top, bottom, left, right, mode, tile, channels_last},
                                 pointer<float>(x),
                                 pointer<float>(grad),
                                 pointer<float>(out),
                                 pointer<float>(spectrum),
                                 pointer<float>(grad_x),
                                 pointer<float>(grad_weight),
                                 pointer<float>(grad_bias),
                                 pointer<float>(grad_residual)};
           }),
           py::kw_only(), "batch"_a, "in_channels"_a, "out_channels"_a, "height"_a, "width"_a, "kernel_h"_a,
           "kernel_w"_a, "dilation_h"_a, "dilation_w"_a, "top"_a, "bottom"_a, "left"_a, "right"_a, "mode"_a, "tile"_a,
           "channels_last"_a, "x"_a = 0, "grad"_a, "out"_a = 0, "spectrum"_a = 0, "grad_x"_a = 0, "grad_weight"_a = 0,
           "grad_bias"_a = 0, "grad_residual"_a = 0);
}

inline void define_conv_cpu(py::module_& cpu) {
  define_cpu<ConvSpectrum>(cpu, "conv_spectrum", &Kernels::conv_spectrum);
  define_cpu<ConvForward>(cpu, "conv_forward", &Kernels::conv_forward);
  define_cpu<ConvBackward>(cpu, "conv_backward", &Kernels::conv_backward);
}

}  // namespace bindings
}  // namespace deal
