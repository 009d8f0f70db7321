// What Python sees. Nothing of torch is known here.
#include "bindings/conv.h"
#include "bindings/degradation.h"
#include "bindings/lif.h"
#include "bindings/ssim.h"
#include "bindings/tdbn.h"

PYBIND11_MODULE(_C, m) {
  m.def("isa", [] { return deal::kernels().isa; });
#if defined(_OPENMP)
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
#if defined(DEAL_CUDA)
  m.attr("cuda_architectures") = DEAL_CUDA;
#endif
  deal::bindings::define_conv(m);
  deal::bindings::define_lif(m);
  deal::bindings::define_mixture(m);
  deal::bindings::define_ssim(m);
  deal::bindings::define_tdbn(m);
}
