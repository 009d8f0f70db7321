// The degradation mixture for Python.
#pragma once
#include <pybind11/stl.h>

#include <memory>
#include <vector>

#include "call.h"

namespace deal {
namespace bindings {

using DegradationOps = std::vector<DegradationOp>;

// A call and the ops it points to.
template <class Call>
struct WithOps : Call {
  WithOps(const Call& call, const DegradationOps& given) : Call(call), owned(given) {
    Call::op_count = int(owned.size());
    Call::ops = owned.data();
  }
  WithOps(const WithOps&) = delete;
  WithOps& operator=(const WithOps&) = delete;

  DegradationOps owned;
};
using OwnedDegradationForward = WithOps<DegradationForward>;
using OwnedDegradationBackward = WithOps<DegradationBackward>;

inline DegradationInput degradation_input(DType dtype, int64_t batch, int64_t channels, int64_t height, int64_t width,
                                          int64_t stages, Address x, Address weights) {
  return {dtype, batch, channels, height, width, stages, 0, nullptr, pointer(x), pointer(weights)};
}

inline void define_degradation_kinds(py::module_& m) {
  py::enum_<DegradationKind>(m, "Degradation", local())
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
      .value("noise", DegradationKind::noise);
}

inline void define_degradation(py::module_& m) {
  define_degradation_kinds(m);
  py::class_<DegradationOp>(m, "DegradationOp", local())
      .def(py::init([](DegradationKind kind, double strength, bool straight_through, Address values) {
             return DegradationOp{kind, strength, straight_through, pointer(values)};
           }),
           py::kw_only(), "kind"_a, "strength"_a = 0.0, "straight_through"_a = false, "values"_a = 0);
  py::class_<OwnedDegradationForward>(m, "DegradationForward", local())
      .def(py::init([](DType dtype, int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t stages,
                       const DegradationOps& ops, Address x, Address weights, Address y, Address inputs) {
             const DegradationInput input =
                 degradation_input(dtype, batch, channels, height, width, stages, x, weights);
             return std::make_unique<OwnedDegradationForward>(DegradationForward{input, pointer(y), pointer(inputs)},
                                                              ops);
           }),
           py::kw_only(), "dtype"_a, "batch"_a, "channels"_a, "height"_a, "width"_a, "stages"_a, "ops"_a, "x"_a,
           "weights"_a, "y"_a, "inputs"_a = 0);
  py::class_<OwnedDegradationBackward>(m, "DegradationBackward", local())
      .def(py::init([](DType dtype, int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t stages,
                       const DegradationOps& ops, Address x, Address weights, Address inputs, Address grad,
                       Address grad_x, Address grad_weights) {
             const DegradationInput input =
                 degradation_input(dtype, batch, channels, height, width, stages, x, weights);
             return std::make_unique<OwnedDegradationBackward>(
                 DegradationBackward{input, pointer(inputs), pointer(grad), pointer(grad_x), pointer(grad_weights)},
                 ops);
           }),
           py::kw_only(), "dtype"_a, "batch"_a, "channels"_a, "height"_a, "width"_a, "stages"_a, "ops"_a, "x"_a,
           "weights"_a, "inputs"_a = 0, "grad"_a, "grad_x"_a = 0, "grad_weights"_a = 0);
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
