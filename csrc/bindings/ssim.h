// Structural similarity for Python.
#pragma once
#include "call.h"

namespace deal {
namespace bindings {

// Where is what the kernel runs on: a thread count, or a device and a stream.
template <class... Where, class Run>
void define_ssim(py::module_& m, const char* name, const Run& run) {
  m.def(
      name,
      [run](int dtype, int64_t planes, int64_t height, int64_t width, int64_t margin, double c1, double c2, Address a,
            Address b, Address map, double offset, double structure, double pixel, Address loss, Address grad,
            bool grad_of_map, Address grad_a, Address grad_b, Where... where) {
        const Ssim call = {DType(dtype), planes, height, width, margin, c1, c2, pointer(a), pointer(b), pointer(map),
                           offset, structure, pixel, pointer(loss), pointer(grad), grad_of_map, pointer(grad_a),
                           pointer(grad_b)};
        run(call, where...);
      },
      ReleaseGil());
}

inline void define_ssim(py::module_& m) {
  define_ssim<int>(m, "ssim", on_cpu(&Kernels::ssim));
#if defined(DEAL_CUDA)
  m.def("cuda_ssim_blocks", &cuda::ssim_blocks);
  define_ssim<int, Address>(m, "cuda_ssim", on_gpu(cuda::ssim));
#endif
}

}  // namespace bindings
}  // namespace deal
