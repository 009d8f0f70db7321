// Padding for Python.
#pragma once
#include "call.h"

namespace deal {
namespace bindings {

template <class Call>
Fields<Call> pad_fields(const char* name) {
  return Fields<Call>(name)
      .required("dtype", set<&Call::dtype>)
      .required("planes", set<&Call::planes>)
      .required("height", set<&Call::height>)
      .required("width", set<&Call::width>)
      .required("inner", set<&Call::inner>)
      .required("top", set<&Call::top>)
      .required("bottom", set<&Call::bottom>)
      .required("left", set<&Call::left>)
      .required("right", set<&Call::right>)
      .required("mode", set<&Call::mode>);
}

inline void define_pad(py::module_& m) {
  py::enum_<Padding>(m, "Padding", py::module_local())
      .value("zeros", Padding::zeros)
      .value("reflect", Padding::reflect)
      .value("replicate", Padding::replicate);
  pad_fields<PadForward>("PadForward")
      .required("x", set<&PadForward::x>)
      .required("out", set<&PadForward::out>)
      .define(m);
  pad_fields<PadBackward>("PadBackward")
      .required("grad", set<&PadBackward::grad>)
      .required("grad_x", set<&PadBackward::grad_x>)
      .define(m);
}

inline void define_pad_cuda(py::module_& cuda) {
  define_cuda<PadForward>(cuda, "pad_forward", &cuda::pad_forward);
  define_cuda<PadBackward>(cuda, "pad_backward", &cuda::pad_backward);
}

}  // namespace bindings
}  // namespace deal
