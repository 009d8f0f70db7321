// The module deal_kernels._C. It does not depend on torch.
#include "consensus.h"
#include "conv.h"
#include "degradation.h"
#include "lif.h"
#include "pad.h"
#include "psn.h"
#include "multistate.h"
#include "ssim.h"
#include "tdbn.h"

PYBIND11_MODULE(_C, m) {
  using namespace deal::bindings;
  m.def("isa", [] { return deal::kernels().isa; });
#if defined(__clang__)
  m.attr("compiler") = __VERSION__;
#elif defined(__GNUC__)
  m.attr("compiler") = "GCC " __VERSION__;
#endif
#if defined(_OPENMP)
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
  define_dtype(m);
  define_lif(m);
  define_psn(m);
  define_multistate(m);
  define_tdbn(m);
  define_degradation(m);
  define_ssim(m);
  define_pad(m);
  define_consensus(m);
  define_conv(m);

  py::module_ cpu = m.def_submodule("cpu");
  define_lif_cpu(cpu);
  define_psn_cpu(cpu);
  define_multistate_cpu(cpu);
  define_tdbn_cpu(cpu);
  define_degradation_cpu(cpu);
  define_ssim_cpu(cpu);
  define_consensus_cpu(cpu);
  define_conv_cpu(cpu);

#if defined(DEAL_CUDA)
  m.attr("cuda_architectures") = DEAL_CUDA;
  py::module_ cuda = m.def_submodule("cuda");
  cuda.def("problem", &deal::cuda::problem, ReleaseGil());
  define_lif_cuda(cuda);
  define_psn_cuda(cuda);
  define_multistate_cuda(cuda);
  define_tdbn_cuda(cuda);
  define_degradation_cuda(cuda);
  define_ssim_cuda(cuda);
  define_pad_cuda(cuda);
#endif
}
