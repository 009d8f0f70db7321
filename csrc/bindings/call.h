// How Python calls kernels: with one struct per call.
#pragma once
#include <stdexcept>

#include "../cpu/common/kernels.h"
#include "../cuda/common/kernels.h"
#include "fields.h"

namespace deal {
namespace bindings {

using ReleaseGil = py::call_guard<py::gil_scoped_release>;

inline void define_dtype(py::module_& m) {
  py::enum_<DType>(m, "DType", py::module_local())
      .value("float32", DType::float32)
      .value("float16", DType::float16)
      .value("bfloat16", DType::bfloat16)
      .value("float64", DType::float64);
}

// Without groups the neurons of a step lie side by side.
template <class Call>
void complete(Call& call) {
  if (call.group == 0) call.group = call.neurons;
}

// Defines kernel(call, threads). The instruction set is chosen by the first call.
template <class Bound, class Call>
void define_cpu(py::module_& m, const char* name, void (*Kernels::*kernel)(const Call&, int)) {
  m.def(name, [kernel](const Bound& call, int threads) { (kernels().*kernel)(call, threads); }, ReleaseGil());
}

// Defines kernel(call, workspace, stream), and workspace(call): how many bytes that is.
template <class Bound, class Call>
void define_cuda(py::module_& m, const char* name, const char* (*kernel)(const Call&, void*, CUstream_st*)) {
  m.def(
      name,
      [kernel](const Bound& call, Address workspace, Address stream) {
        const char* const error =
            kernel(call, reinterpret_cast<void*>(workspace), reinterpret_cast<CUstream_st*>(stream));
        if (error) throw std::runtime_error(error);
      },
      ReleaseGil());
  m.def("workspace", [](const Bound& call) { return cuda::workspace_bytes(call); });
}

}  // namespace bindings
}  // namespace deal
