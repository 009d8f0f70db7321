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

// A mixture and the operations it points to.
class GivenMixture {
 public:
  GivenMixture(int dtype, int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t stages,
               const Operations& operations, Address x, Address weights) {
    for (const auto& [kind, strength, straight_through, values] : operations)
      operations_.push_back({Degradation(kind), strength, straight_through, pointer(values)});
    mixture_ = {DType(dtype), batch, channels, height, width, stages, int(operations_.size()), operations_.data(),
                pointer(x), pointer(weights)};
  }
  const Mixture& get() const { return mixture_; }

 private:
  std::vector<Operation> operations_;
  Mixture mixture_;
};

// Where is what the kernel runs on: a thread count, or a workspace, a device and a stream.
template <class... Where, class Run>
void define_mixture_forward(py::module_& m, const char* name, const Run& run) {
  m.def(
      name,
      [run](int dtype, int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t stages,
            const Operations& operations, Address x, Address weights, Address y, Address inputs, Where... where) {
        const GivenMixture mixture(dtype, batch, channels, height, width, stages, operations, x, weights);
        run(MixtureForward{mixture.get(), pointer(y), pointer(inputs)}, where...);
      },
      ReleaseGil());
}

template <class... Where, class Run>
void define_mixture_backward(py::module_& m, const char* name, const Run& run) {
  m.def(
      name,
      [run](int dtype, int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t stages,
            const Operations& operations, Address x, Address weights, Address inputs, Address grad, Address grad_x,
            Address grad_weights, Where... where) {
        const GivenMixture mixture(dtype, batch, channels, height, width, stages, operations, x, weights);
        run(MixtureBackward{mixture.get(), pointer(inputs), pointer(grad), pointer(grad_x), pointer(grad_weights)},
            where...);
      },
      ReleaseGil());
}

inline void define_mixture(py::module_& m) {
  define_mixture_forward<int>(m, "mixture_forward", on_cpu(&Kernels::mixture_forward));
  define_mixture_backward<int>(m, "mixture_backward", on_cpu(&Kernels::mixture_backward));
#if defined(DEAL_CUDA)
  m.def("cuda_mixture_workspace",
        [](int dtype, int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t stages,
           const Operations& operations, bool backward) {
          const GivenMixture mixture(dtype, batch, channels, height, width, stages, operations, 0, 0);
          return cuda::mixture_workspace(mixture.get(), backward);
        });
  define_mixture_forward<Address, int, Address>(m, "cuda_mixture_forward", on_gpu_with_room(cuda::mixture_forward));
  define_mixture_backward<Address, int, Address>(m, "cuda_mixture_backward", on_gpu_with_room(cuda::mixture_backward));
#endif
}

}  // namespace bindings
}  // namespace deal
