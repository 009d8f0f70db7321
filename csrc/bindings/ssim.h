// Structural similarity for Python.
#pragma once
#include "call.h"

namespace deal {
namespace bindings {

inline void define_ssim(py::module_& m) {
  Fields<Ssim>("Ssim")
      .required("dtype", set<&Ssim::dtype>)
      .required("planes", set<&Ssim::planes>)
      .required("height", set<&Ssim::height>)
      .required("width", set<&Ssim::width>)
      .required("margin", set<&Ssim::margin>)
      .required("c1", set<&Ssim::c1>)
      .required("c2", set<&Ssim::c2>)
      .required("a", set<&Ssim::a>)
      .required("b", set<&Ssim::b>)
      .optional("map", set<&Ssim::map>)
      .required("offset", set<&Ssim::offset>)
      .required("structure", set<&Ssim::structure>)
      .required("pixel", set<&Ssim::pixel>)
      .optional("loss", set<&Ssim::loss>)
      .optional("grad", set<&Ssim::grad>)
      .optional("grad_of_map", set<&Ssim::grad_of_map>)
      .optional("grad_a", set<&Ssim::grad_a>)
      .optional("grad_b", set<&Ssim::grad_b>)
      .define(m);
}

inline void define_ssim_cpu(py::module_& cpu) { define_cpu<Ssim>(cpu, "ssim", &Kernels::ssim); }

inline void define_ssim_cuda(py::module_& cuda) {
  define_cuda<Ssim>(cuda, "ssim", &cuda::ssim);
  cuda.def("ssim_parts", &cuda::ssim_parts);
}

}  // namespace bindings
}  // namespace deal
