// Convolution for Python.
#pragma once
#include "../math/spectrum.h"
#include "call.h"

namespace deal {
namespace bindings {

template <class Call>
Fields<Call> conv_fields(const char* name) {
  return Fields<Call>(name)
      .required("batch", set<&Call::batch>)
      .required("in_channels", set<&Call::in_channels>)
      .required("out_channels", set<&Call::out_channels>)
      .required("height", set<&Call::height>)
      .required("width", set<&Call::width>)
      .required("kernel_h", set<&Call::kernel_h>)
      .required("kernel_w", set<&Call::kernel_w>)
      .required("dilation_h", set<&Call::dilation_h>)
      .required("dilation_w", set<&Call::dilation_w>)
      .required("top", set<&Call::top>)
      .required("bottom", set<&Call::bottom>)
      .required("left", set<&Call::left>)
      .required("right", set<&Call::right>)
      .required("mode", set<&Call::mode>)
      .required("tile", set<&Call::tile>)
      .required("channels_last", set<&Call::channels_last>);
}

inline void define_conv(py::module_& m) {
  m.def("conv_spectrum_floats", &conv_spectrum_floats);
  Fields<ConvSpectrum>("ConvSpectrum")
      .required("in_channels", set<&ConvSpectrum::in_channels>)
      .required("out_channels", set<&ConvSpectrum::out_channels>)
      .required("kernel_h", set<&ConvSpectrum::kernel_h>)
      .required("kernel_w", set<&ConvSpectrum::kernel_w>)
      .required("tile", set<&ConvSpectrum::tile>)
      .required("transposed", set<&ConvSpectrum::transposed>)
      .required("weight", set<&ConvSpectrum::weight>)
      .required("spectrum", set<&ConvSpectrum::spectrum>)
      .define(m);
  conv_fields<ConvForward>("ConvForward")
      .required("x", set<&ConvForward::x>)
      .required("spectrum", set<&ConvForward::spectrum>)
      .optional("bias", set<&ConvForward::bias>)
      .optional("residual", set<&ConvForward::residual>)
      .optional("relu", set<&ConvForward::relu>)
      .required("out", set<&ConvForward::out>)
      .define(m);
  conv_fields<ConvBackward>("ConvBackward")
      .optional("x", set<&ConvBackward::x>)
      .required("grad", set<&ConvBackward::grad>)
      .optional("out", set<&ConvBackward::out>)
      .optional("spectrum", set<&ConvBackward::spectrum>)
      .optional("grad_x", set<&ConvBackward::grad_x>)
      .optional("grad_weight", set<&ConvBackward::grad_weight>)
      .optional("grad_bias", set<&ConvBackward::grad_bias>)
      .optional("grad_residual", set<&ConvBackward::grad_residual>)
      .define(m);
}

inline void define_conv_cpu(py::module_& cpu) {
  define_cpu<ConvSpectrum>(cpu, "conv_spectrum", &Kernels::conv_spectrum);
  define_cpu<ConvForward>(cpu, "conv_forward", &Kernels::conv_forward);
  define_cpu<ConvBackward>(cpu, "conv_backward", &Kernels::conv_backward);
}

}  // namespace bindings
}  // namespace deal
