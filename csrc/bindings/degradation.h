// The degradation mixture for Python.
#pragma once
#include <pybind11/stl.h>

#include <tuple>
#include <vector>

#include "call.h"

namespace deal {
namespace bindings {

// Kind, strength, straight through, values.
using Operations = std::vector<std::tuple<int, double, bool, Address>>;

inline std::vector<Operation> read_operations(const Operations& operations) {
  std::vector<Operation> result;
  for (const auto& [kind, strength, straight_through, values] : operations)
    result.push_back({Degradation(kind), strength, straight_through, pointer(values)});
  return result;
}

// Where is what the kernel runs on: a thread count, or a workspace, a device and a stream.
template <class... Where, class Forward, class Backward>
void define_mixture(py::module_& m, const char* forward, const char* backward, const Forward& run_forward,
                    const Backward& run_backward) {
  m.def(
      forward,
      [run_forward](int dtype, int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t stages,
                    const Operations& operations, Address x, Address weights, Address y, Address inputs, Where... where) {
        const std::vector<Operation> each = read_operations(operations);
        const Mixture mixture = {DType(dtype), batch, channels, height, width, stages, int(each.size()), each.data(),
                                 pointer(x), pointer(weights)};
        run_forward(MixtureForward{mixture, pointer(y), pointer(inputs)}, where...);
      },
      ReleaseGil());
  m.def(
      backward,
      [run_backward](int dtype, int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t stages,
                     const Operations& operations, Address x, Address weights, Address inputs, Address grad,
                     Address grad_x, Address grad_weights, Where... where) {
        const std::vector<Operation> each = read_operations(operations);
        const Mixture mixture = {DType(dtype), batch, channels, height, width, stages, int(each.size()), each.data(),
                                 pointer(x), pointer(weights)};
        run_backward(MixtureBackward{mixture, pointer(inputs), pointer(grad), pointer(grad_x), pointer(grad_weights)},
                     where...);
      },
      ReleaseGil());
}

inline void define_mixture(py::module_& m) {
  define_mixture<int>(m, "mixture_forward", "mixture_backward", on_cpu(&Kernels::mixture_forward),
                      on_cpu(&Kernels::mixture_backward));
}

}  // namespace bindings
}  // namespace deal
