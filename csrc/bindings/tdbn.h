// Batch norm for Python.
#pragma once
#include "call.h"

namespace deal {
namespace bindings {

template <class Call>
Fields<Call> tdbn_fields(const char* name) {
  return Fields<Call>(name)
      .required("dtype", set<&Call::dtype>)
      .required("steps", set<&Call::steps>)
      .required("neurons", set<&Call::neurons>)
      .required("time_stride", set<&Call::time_stride>)
      .required("channels", set<&Call::channels>)
      .required("inner", set<&Call::inner>)
      .required("x", set<&Call::x>);
}

inline void define_tdbn(py::module_& m) {
  tdbn_fields<TdbnMoments>("TdbnMoments")
      .required("mean", set<&TdbnMoments::mean>)
      .required("variance", set<&TdbnMoments::variance>)
      .define(m);
  tdbn_fields<TdbnNormalise>("TdbnNormalise")
      .required("mean", set<&TdbnNormalise::mean>)
      .required("scale", set<&TdbnNormalise::scale>)
      .required("shift", set<&TdbnNormalise::shift>)
      .required("out", set<&TdbnNormalise::out>)
      .define(m);
  tdbn_fields<TdbnGradientSums>("TdbnGradientSums")
      .required("grad", set<&TdbnGradientSums::grad>)
      .required("mean", set<&TdbnGradientSums::mean>)
      .required("sums", set<&TdbnGradientSums::sums>)
      .define(m);
  tdbn_fields<TdbnGradient>("TdbnGradient")
      .required("grad", set<&TdbnGradient::grad>)
      .required("mean", set<&TdbnGradient::mean>)
      .required("direct", set<&TdbnGradient::direct>)
      .required("by_variance", set<&TdbnGradient::by_variance>)
      .required("by_mean", set<&TdbnGradient::by_mean>)
      .required("out", set<&TdbnGradient::out>)
      .define(m);
  Fields<TdbnScale>("TdbnScale")
      .required("dtype", set<&TdbnScale::dtype>)
      .required("channels", set<&TdbnScale::channels>)
      .required("eps", set<&TdbnScale::eps>)
      .required("correction", set<&TdbnScale::correction>)
      .required("variance", set<&TdbnScale::variance>)
      .required("weight", set<&TdbnScale::weight>)
      .required("out", set<&TdbnScale::out>)
      .define(m);
  Fields<TdbnFactors>("TdbnFactors")
      .required("dtype", set<&TdbnFactors::dtype>)
      .required("channels", set<&TdbnFactors::channels>)
      .required("share", set<&TdbnFactors::share>)
      .required("sums", set<&TdbnFactors::sums>)
      .required("own", set<&TdbnFactors::own>)
      .required("weight", set<&TdbnFactors::weight>)
      .required("inverse", set<&TdbnFactors::inverse>)
      .required("out", set<&TdbnFactors::out>)
      .define(m);
}

inline void define_tdbn_cpu(py::module_& cpu) {
  define_cpu<TdbnMoments>(cpu, "tdbn_moments", &Kernels::tdbn_moments);
  define_cpu<TdbnNormalise>(cpu, "tdbn_normalise", &Kernels::tdbn_normalise);
  define_cpu<TdbnGradientSums>(cpu, "tdbn_gradient_sums", &Kernels::tdbn_gradient_sums);
  define_cpu<TdbnGradient>(cpu, "tdbn_gradient", &Kernels::tdbn_gradient);
  define_cpu<TdbnScale>(cpu, "tdbn_scale", &Kernels::tdbn_scale);
  define_cpu<TdbnFactors>(cpu, "tdbn_factors", &Kernels::tdbn_factors);
}

inline void define_tdbn_cuda(py::module_& cuda) {
  define_cuda<TdbnMoments>(cuda, "tdbn_moments", &cuda::tdbn_moments);
  define_cuda<TdbnNormalise>(cuda, "tdbn_normalise", &cuda::tdbn_normalise);
  define_cuda<TdbnGradientSums>(cuda, "tdbn_gradient_sums", &cuda::tdbn_gradient_sums);
  define_cuda<TdbnGradient>(cuda, "tdbn_gradient", &cuda::tdbn_gradient);
  define_cuda<TdbnScale>(cuda, "tdbn_scale", &cuda::tdbn_scale);
  define_cuda<TdbnFactors>(cuda, "tdbn_factors", &cuda::tdbn_factors);
}

}  // namespace bindings
}  // namespace deal
