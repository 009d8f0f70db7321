// The degradation mixture for Python.
#pragma once
#include <pybind11/stl.h>

#include <vector>

#include "call.h"

namespace deal {
namespace bindings {

using DegradationOps = std::vector<DegradationOp>;

// A call and the ops it points to.
template <class Call>
struct WithOps : Call {
  WithOps() = default;
  WithOps(const WithOps&) = delete;
  WithOps& operator=(const WithOps&) = delete;

  DegradationOps owned;
};
using OwnedDegradationForward = WithOps<DegradationForward>;
using OwnedDegradationBackward = WithOps<DegradationBackward>;

inline void define_degradation_kinds(py::module_& m) {
  py::enum_<DegradationKind>(m, "Degradation", py::module_local())
      .value("identity", DegradationKind::identity)
      .value("contrast", DegradationKind::contrast)
      .value("saturation", DegradationKind::saturation)
      .value("sharpness", DegradationKind::sharpness)
      .value("gaussian_blur", DegradationKind::gaussian_blur)
      .value("max_pool_resize", DegradationKind::max_pool_resize)
      .value("average_pool_resize", DegradationKind::average_pool_resize)
      .value("bicubic_resize", DegradationKind::bicubic_resize)
      .value("posterize", DegradationKind::posterize)
      .value("stripe", DegradationKind::stripe)
      .value("row_stripe", DegradationKind::row_stripe)
      .value("gain", DegradationKind::gain)
      .value("noise", DegradationKind::noise)
      .value("wide_blur", DegradationKind::wide_blur)
      .value("row_gain", DegradationKind::row_gain)
      .value("tone", DegradationKind::tone)
      .value("dead", DegradationKind::dead)
      .value("pattern", DegradationKind::pattern)
      .value("quantise", DegradationKind::quantise)
      .value("clip", DegradationKind::clip);
}

template <class Call>
Fields<Call> degradation_fields(const char* name) {
  return Fields<Call>(name)
      .required("dtype", set<&Call::dtype>)
      .required("batch", set<&Call::batch>)
      .required("channels", set<&Call::channels>)
      .required("height", set<&Call::height>)
      .required("width", set<&Call::width>)
      .required("stages", set<&Call::stages>)
      .required("ops",
                [](Call& call, py::handle value) {
                  call.owned = value.cast<DegradationOps>();
                  call.op_count = int(call.owned.size());
                  call.ops = call.owned.data();
                })
      .required("x", set<&Call::x>)
      .required("weights", set<&Call::weights>);
}

inline void define_degradation(py::module_& m) {
  define_degradation_kinds(m);
  Fields<DegradationOp>("DegradationOp")
      .required("kind", set<&DegradationOp::kind>)
      .optional("strength", set<&DegradationOp::strength>)
      .optional("straight_through", set<&DegradationOp::straight_through>)
      .optional("values", set<&DegradationOp::values>)
      .define(m);
  degradation_fields<OwnedDegradationForward>("DegradationForward")
      .required("y", set<&DegradationForward::y>)
      .optional("inputs", set<&DegradationForward::inputs>)
      .define(m);
  degradation_fields<OwnedDegradationBackward>("DegradationBackward")
      .optional("inputs", set<&DegradationBackward::inputs>)
      .required("grad", set<&DegradationBackward::grad>)
      .optional("grad_x", set<&DegradationBackward::grad_x>)
      .optional("grad_weights", set<&DegradationBackward::grad_weights>)
      .define(m);
}

inline void define_degradation_cpu(py::module_& cpu) {
  define_cpu<OwnedDegradationForward>(cpu, "degradation_forward", &Kernels::degradation_forward);
  define_cpu<OwnedDegradationBackward>(cpu, "degradation_backward", &Kernels::degradation_backward);
}

inline void define_degradation_cuda(py::module_& cuda) {
  define_cuda<OwnedDegradationForward>(cuda, "degradation_forward", &cuda::degradation_forward);
  define_cuda<OwnedDegradationBackward>(cuda, "degradation_backward", &cuda::degradation_backward);
}

}  // namespace bindings
}  // namespace deal
