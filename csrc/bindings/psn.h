// The parallel spiking neuron for Python.
#pragma once
#include "call.h"

namespace deal {
namespace bindings {

// What both directions are given.
template <class Call>
Fields<Call> psn_fields(const char* name) {
  return Fields<Call>(name)
      .required("dtype", set<&Call::dtype>)
      .required("steps", set<&Call::steps>)
      .required("neurons", set<&Call::neurons>)
      .optional("group", set<&Call::group>)
      .required("time_stride", set<&Call::time_stride>)
      .required("skipped", set<&Call::skipped>)
      .required("band", set<&Call::band>)
      .required("sliding", set<&Call::sliding>)
      .required("x", set<&Call::x>)
      .required("weight", set<&Call::weight>)
      .required("bias", set<&Call::bias>);
}

inline void define_psn(py::module_& m) {
  psn_fields<PsnForward>("PsnForward")
      .required("membranes", set<&PsnForward::membranes>)
      .required("out", set<&PsnForward::out>)
      .define(m, &complete<PsnForward>);
  psn_fields<PsnBackward>("PsnBackward")
      .required("surrogate", set<&PsnBackward::surrogate>)
      .required("alpha", set<&PsnBackward::alpha>)
      .required("height", set<&PsnBackward::height>)
      .required("outside", set<&PsnBackward::outside>)
      .required("grad", set<&PsnBackward::grad>)
      .optional("grad_x", set<&PsnBackward::grad_x>)
      .optional("grad_weight", set<&PsnBackward::grad_weight>)
      .optional("grad_bias", set<&PsnBackward::grad_bias>)
      .optional("grad_h", set<&PsnBackward::grad_h>)
      .define(m, &complete<PsnBackward>);
}

inline void define_psn_cpu(py::module_& cpu) {
  define_cpu<PsnForward>(cpu, "psn_forward", &Kernels::psn_forward);
  define_cpu<PsnBackward>(cpu, "psn_backward", &Kernels::psn_backward);
}

inline void define_psn_cuda(py::module_& cuda) {
  define_cuda<PsnForward>(cuda, "psn_forward", &cuda::psn_forward);
  define_cuda<PsnBackward>(cuda, "psn_backward", &cuda::psn_backward);
}

}  // namespace bindings
}  // namespace deal
