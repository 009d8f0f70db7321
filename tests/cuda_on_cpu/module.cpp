// The CUDA kernels as a module with the interface of deal_kernels._C.
#include <cuda_runtime.h>
#include <pybind11/stl.h>

#include <utility>

#include "../../csrc/bindings/degradation.h"
#include "../../csrc/bindings/lif.h"
#include "../../csrc/bindings/pad.h"
#include "../../csrc/bindings/psn.h"
#include "../../csrc/bindings/multistate.h"
#include "../../csrc/bindings/ssim.h"
#include "../../csrc/bindings/tdbn.h"
#include "../../csrc/cuda/common/divisor.h"

namespace deal {
namespace cuda {
alignas(16) uint4 shared_words[3072];
}
}  // namespace deal

PYBIND11_MODULE(emulated, m) {
  using namespace deal::bindings;
  define_dtype(m);
  define_lif(m);
  define_psn(m);
  define_multistate(m);
  define_tdbn(m);
  define_degradation(m);
  define_ssim(m);
  define_pad(m);
  py::module_ cuda = m.def_submodule("cuda");
  define_lif_cuda(cuda);
  define_psn_cuda(cuda);
  define_multistate_cuda(cuda);
  define_tdbn_cuda(cuda);
  define_degradation_cuda(cuda);
  define_ssim_cuda(cuda);
  define_pad_cuda(cuda);
  cuda.def("problem", &deal::cuda::problem);
  m.def("quotient", [](int64_t n, int64_t by) { return deal::cuda::Divisor(by).quotient(n); });
  m.def("launched", [] { return std::exchange(launched, {}); });  // since the last time
  m.def("installed", [](int driver, bool image) {
    driver_version = driver;
    has_image = image;
  });
}
