// The neuron for Python.
#pragma once
#include "call.h"

namespace deal {
namespace bindings {

inline Norm norm(Address mean, Address scale, Address shift, int64_t channels, int64_t inner, Address shortcut) {
  const auto parameter = [=](Address data) { return Parameter{pointer(data), channels, inner}; };
  return {parameter(mean), parameter(scale), parameter(shift), pointer(shortcut)};
}

inline LifInput lif_input(Neuron neuron, DType dtype, Output output, int64_t steps, int64_t neurons,
                          int64_t time_stride, Address x, Address v0, Address decay, int64_t decay_channels,
                          Address threshold, int64_t threshold_channels, int64_t inner, const Norm* norm) {
  neuron.multiply = neuron.multiply && !decay;
  return {neuron,
          dtype,
          output,
          steps,
          neurons,
          time_stride,
          pointer(x),
          pointer(v0),
          {pointer(decay), decay_channels, inner},
          {pointer(threshold), threshold_channels, inner},
          norm ? *norm : Norm{}};
}

inline void define_lif_enums(py::module_& m) {
  py::enum_<Output>(m, "Output", local())
      .value("spikes", Output::spikes)
      .value("mean", Output::mean)
      .value("packed", Output::packed);
  py::enum_<Charge>(m, "Charge", local())
      .value("decay_input", Charge::decay_input)
      .value("decay", Charge::decay)
      .value("beta", Charge::beta);
  py::enum_<Fire>(m, "Fire", local()).value("ge", Fire::ge).value("gt", Fire::gt).value("levels", Fire::levels);
  py::enum_<Reset>(m, "Reset", local())
      .value("hard", Reset::hard)
      .value("soft", Reset::soft)
      .value("none", Reset::none);
  py::enum_<Surrogate>(m, "Surrogate", local())
      .value("sigmoid", Surrogate::sigmoid)
      .value("atan", Surrogate::atan)
      .value("triangle", Surrogate::triangle)
      .value("rectangle", Surrogate::rectangle)
      .value("fast_sigmoid", Surrogate::fast_sigmoid)
      .value("erf", Surrogate::erf);
}

inline void define_lif(py::module_& m) {
  define_lif_enums(m);
  py::class_<Neuron>(m, "Neuron", local())
      .def(py::init([](Charge charge, Fire fire, Reset reset, Surrogate surrogate, bool detach_reset, bool multiply,
                       double decay, double threshold, double rest, double alpha, double height, double levels) {
             return Neuron{charge, fire,      reset, surrogate, detach_reset, multiply,
                           decay,  threshold, rest,  alpha,     height,       levels};
           }),
           py::kw_only(), "charge"_a, "fire"_a, "reset"_a, "surrogate"_a, "detach_reset"_a, "multiply"_a, "decay"_a,
           "threshold"_a, "rest"_a, "alpha"_a, "height"_a, "levels"_a);
  py::class_<Norm>(m, "Norm", local())
      .def(py::init(&norm), py::kw_only(), "mean"_a, "scale"_a, "shift"_a, "channels"_a, "inner"_a, "shortcut"_a = 0);
  py::class_<LifForward>(m, "LifForward", local())
      .def(py::init([](const Neuron& neuron, DType dtype, Output output, int64_t steps, int64_t neurons,
                       int64_t time_stride, Address x, Address v0, Address decay, int64_t decay_channels,
                       Address threshold, int64_t threshold_channels, int64_t inner, const Norm* norm, Address out,
                       Address v) {
             return LifForward{lif_input(neuron, dtype, output, steps, neurons, time_stride, x, v0, decay,
                                         decay_channels, threshold, threshold_channels, inner, norm),
                               pointer(out), pointer(v)};
           }),
           py::kw_only(), "neuron"_a, "dtype"_a, "output"_a, "steps"_a, "neurons"_a, "time_stride"_a, "x"_a, "v0"_a = 0,
           "decay"_a = 0, "decay_channels"_a = 1, "threshold"_a = 0, "threshold_channels"_a = 1, "inner"_a = 1,
           "norm"_a = py::none(), "out"_a, "v"_a = 0);
  py::class_<LifBackward>(m, "LifBackward", local())
      .def(py::init([](const Neuron& neuron, DType dtype, Output output, int64_t steps, int64_t neurons,
                       int64_t time_stride, Address x, Address v0, Address decay, int64_t decay_channels,
                       Address threshold, int64_t threshold_channels, int64_t inner, const Norm* norm, bool constant,
                       Address grad, Address grad_v, Address grad_x, Address grad_v0, Address grad_decay,
                       Address grad_threshold, Address norm_sums) {
             return LifBackward{lif_input(neuron, dtype, output, steps, neurons, time_stride, x, v0, decay,
                                          decay_channels, threshold, threshold_channels, inner, norm),
                                constant,
                                pointer(grad),
                                pointer(grad_v),
                                pointer(grad_x),
                                pointer(grad_v0),
                                pointer(grad_decay),
                                pointer(grad_threshold),
                                pointer(norm_sums)};
           }),
           py::kw_only(), "neuron"_a, "dtype"_a, "output"_a, "steps"_a, "neurons"_a, "time_stride"_a, "x"_a, "v0"_a = 0,
           "decay"_a = 0, "decay_channels"_a = 1, "threshold"_a = 0, "threshold_channels"_a = 1, "inner"_a = 1,
           "norm"_a = py::none(), "constant"_a = false, "grad"_a, "grad_v"_a = 0, "grad_x"_a, "grad_v0"_a = 0,
           "grad_decay"_a = 0, "grad_threshold"_a = 0, "norm_sums"_a = 0);
}

constexpr int64_t kSmall = 1 << 14;  // neurons times steps that take a few microseconds

// The most frequent call. Its arguments are positional, and it keeps the GIL for a small layer: keywords and the GIL
// cost as much as the kernel there.
inline void lif_spikes(const Neuron& neuron, DType dtype, int64_t steps, int64_t neurons, Address x, Address out,
                       int threads) {
  const LifForward call{lif_input(neuron, dtype, Output::spikes, steps, neurons, neurons, x, 0, 0, 1, 0, 1, 1, nullptr),
                        pointer(out), nullptr};
  if (steps * neurons < kSmall) return kernels().lif_forward(call, threads);
  py::gil_scoped_release released;
  kernels().lif_forward(call, threads);
}

inline void define_lif_cpu(py::module_& cpu) {
  cpu.def("lif_spikes", &lif_spikes);
  define_cpu<LifForward>(cpu, "lif_forward", &Kernels::lif_forward);
  define_cpu<LifBackward>(cpu, "lif_backward", &Kernels::lif_backward);
}

inline void define_lif_cuda(py::module_& cuda) {
  define_cuda<LifForward>(cuda, "lif_forward", &cuda::lif_forward);
  define_cuda<LifBackward>(cuda, "lif_backward", &cuda::lif_backward);
}

}  // namespace bindings
}  // namespace deal
