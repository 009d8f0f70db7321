// Structural similarity for Python.
#pragma once
#include "call.h"

namespace deal {
namespace bindings {

inline void define_ssim(py::module_& m) {
  py::class_<Ssim>(m, "Ssim", local())
      .def(py::init([](DType dtype, int64_t planes, int64_t height, int64_t width, int64_t margin, double c1, double c2,
                       Address a, Address b, Address map, double offset, double structure, double pixel, Address loss,
                       Address grad, bool grad_of_map, Address grad_a, Address grad_b) {
             return Ssim{dtype,       planes,       height,    width,           margin,          c1,
                         c2,          pointer(a),   pointer(b), pointer(map),   offset,          structure,
                         pixel,       pointer(loss), pointer(grad), grad_of_map, pointer(grad_a), pointer(grad_b)};
           }),
           py::kw_only(), "dtype"_a, "planes"_a, "height"_a, "width"_a, "margin"_a, "c1"_a, "c2"_a, "a"_a, "b"_a,
           "map"_a = 0, "offset"_a, "structure"_a, "pixel"_a, "loss"_a = 0, "grad"_a = 0, "grad_of_map"_a = false,
           "grad_a"_a = 0, "grad_b"_a = 0);
}

inline void define_ssim_cpu(py::module_& cpu) { define_cpu<Ssim>(cpu, "ssim", &Kernels::ssim); }

inline void define_ssim_cuda(py::module_& cuda) {
  define_cuda<Ssim>(cuda, "ssim", &cuda::ssim);
  cuda.def("ssim_parts", &cuda::ssim_parts);
}

}  // namespace bindings
}  // namespace deal
