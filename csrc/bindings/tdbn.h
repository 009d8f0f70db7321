// Batch norm for Python.
#pragma once
#include "call.h"

namespace deal {
namespace bindings {

inline TdbnInput tdbn_input(DType dtype, int64_t steps, int64_t neurons, int64_t time_stride, int64_t channels,
                            int64_t inner, Address x) {
  return {dtype, steps, neurons, time_stride, channels, inner, pointer(x)};
}

inline void define_tdbn(py::module_& m) {
  py::class_<TdbnMoments>(m, "TdbnMoments", local())
      .def(py::init([](DType dtype, int64_t steps, int64_t neurons, int64_t time_stride, int64_t channels,
                       int64_t inner, Address x, Address mean, Address variance) {
             return TdbnMoments{tdbn_input(dtype, steps, neurons, time_stride, channels, inner, x), pointer(mean),
                                pointer(variance)};
           }),
           py::kw_only(), "dtype"_a, "steps"_a, "neurons"_a, "time_stride"_a, "channels"_a, "inner"_a, "x"_a, "mean"_a,
           "variance"_a);
  py::class_<TdbnNormalise>(m, "TdbnNormalise", local())
      .def(py::init([](DType dtype, int64_t steps, int64_t neurons, int64_t time_stride, int64_t channels,
                       int64_t inner, Address x, Address mean, Address scale, Address shift, Address out) {
             return TdbnNormalise{tdbn_input(dtype, steps, neurons, time_stride, channels, inner, x), pointer(mean),
                                  pointer(scale), pointer(shift), pointer(out)};
           }),
           py::kw_only(), "dtype"_a, "steps"_a, "neurons"_a, "time_stride"_a, "channels"_a, "inner"_a, "x"_a, "mean"_a,
           "scale"_a, "shift"_a, "out"_a);
  py::class_<TdbnGradientSums>(m, "TdbnGradientSums", local())
      .def(py::init([](DType dtype, int64_t steps, int64_t neurons, int64_t time_stride, int64_t channels,
                       int64_t inner, Address x, Address grad, Address mean, Address sums) {
             return TdbnGradientSums{tdbn_input(dtype, steps, neurons, time_stride, channels, inner, x), pointer(grad),
                                     pointer(mean), pointer(sums)};
           }),
           py::kw_only(), "dtype"_a, "steps"_a, "neurons"_a, "time_stride"_a, "channels"_a, "inner"_a, "x"_a, "grad"_a,
           "mean"_a, "sums"_a);
  py::class_<TdbnGradient>(m, "TdbnGradient", local())
      .def(py::init([](DType dtype, int64_t steps, int64_t neurons, int64_t time_stride, int64_t channels,
                       int64_t inner, Address x, Address grad, Address mean, Address direct, Address by_variance,
                       Address by_mean, Address out) {
             return TdbnGradient{tdbn_input(dtype, steps, neurons, time_stride, channels, inner, x),
                                 pointer(grad),
                                 pointer(mean),
                                 pointer(direct),
                                 pointer(by_variance),
                                 pointer(by_mean),
                                 pointer(out)};
           }),
           py::kw_only(), "dtype"_a, "steps"_a, "neurons"_a, "time_stride"_a, "channels"_a, "inner"_a, "x"_a, "grad"_a,
           "mean"_a, "direct"_a, "by_variance"_a, "by_mean"_a, "out"_a);
}

inline void define_tdbn_cpu(py::module_& cpu) {
  define_cpu<TdbnMoments>(cpu, "tdbn_moments", &Kernels::tdbn_moments);
  define_cpu<TdbnNormalise>(cpu, "tdbn_normalise", &Kernels::tdbn_normalise);
  define_cpu<TdbnGradientSums>(cpu, "tdbn_gradient_sums", &Kernels::tdbn_gradient_sums);
  define_cpu<TdbnGradient>(cpu, "tdbn_gradient", &Kernels::tdbn_gradient);
}

inline void define_tdbn_cuda(py::module_& cuda) {
  define_cuda<TdbnMoments>(cuda, "tdbn_moments", &cuda::tdbn_moments);
  define_cuda<TdbnNormalise>(cuda, "tdbn_normalise", &cuda::tdbn_normalise);
  define_cuda<TdbnGradientSums>(cuda, "tdbn_gradient_sums", &cuda::tdbn_gradient_sums);
  define_cuda<TdbnGradient>(cuda, "tdbn_gradient", &cuda::tdbn_gradient);
}

}  // namespace bindings
}  // namespace deal
