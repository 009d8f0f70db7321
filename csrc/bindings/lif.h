// The neuron for Python.
#pragma once
#include "call.h"

namespace deal {
namespace bindings {

constexpr int64_t kSmall = 1 << 14;  // elements that take a few microseconds

inline Neuron neuron(int charge, int fire, int reset, int surrogate, bool detach_reset, bool multiply, double decay,
                     double threshold, double rest, double alpha, double levels) {
  return {Charge(charge), Fire(fire), Reset(reset), Surrogate(surrogate), detach_reset, multiply,
          decay,          threshold,  rest,         alpha,                levels};
}

inline Norm norm(Address mean, Address scale, Address shift, int64_t channels, int64_t inner, Address shortcut) {
  const auto parameter = [=](Address data) { return Parameter{pointer(data), channels, inner}; };
  return {parameter(mean), parameter(scale), parameter(shift), pointer(shortcut)};
}

inline LifInput lif_input(Neuron neuron, int dtype, int output, int64_t steps, int64_t neurons, int64_t time_stride,
                          Address x, Address v0, Parameter decay, Parameter threshold, const Norm* norm) {
  neuron.multiply = neuron.multiply && !decay.data;
  return {neuron, DType(dtype), Output(output), steps, neurons, time_stride, pointer(x), pointer(v0), decay, threshold,
          norm ? *norm : Norm{}};
}

// Where is what the kernel runs on: a thread count, or a device and a stream.
template <class... Where, class Run>
void define_lif_forward(py::module_& m, const char* name, const Run& run) {
  m.def(
      name,
      [run](const Neuron& neuron, int dtype, int output, int64_t steps, int64_t neurons, int64_t time_stride, Address x,
            Address v0, Address decay, int64_t decay_channels, Address threshold, int64_t threshold_channels,
            int64_t inner, const Norm* norm, Address out, Address v, Where... where) {
        const LifInput input = lif_input(neuron, dtype, output, steps, neurons, time_stride, x, v0,
                                         {pointer(decay), decay_channels, inner},
                                         {pointer(threshold), threshold_channels, inner}, norm);
        run(LifForward{input, pointer(out), pointer(v)}, where...);
      },
      ReleaseGil());
}

template <class... Where, class Run>
void define_lif_backward(py::module_& m, const char* name, const Run& run) {
  m.def(
      name,
      [run](const Neuron& neuron, int dtype, int output, int64_t steps, int64_t neurons, int64_t time_stride, Address x,
            Address v0, Address decay, int64_t decay_channels, Address threshold, int64_t threshold_channels,
            int64_t inner, const Norm* norm, bool constant, Address grad, Address grad_v, Address grad_x,
            Address grad_v0, Address grad_decay, Address grad_threshold, Address norm_sums, Where... where) {
        const LifInput input = lif_input(neuron, dtype, output, steps, neurons, time_stride, x, v0,
                                         {pointer(decay), decay_channels, inner},
                                         {pointer(threshold), threshold_channels, inner}, norm);
        run(LifBackward{input, constant, pointer(grad), pointer(grad_v), pointer(grad_x), pointer(grad_v0),
                        pointer(grad_decay), pointer(grad_threshold), pointer(norm_sums)},
            where...);
      },
      ReleaseGil());
}

// The commonest call. It has few arguments, and keeps the GIL over a small layer, because
// either costs as much as the kernel then.
inline void lif_spikes(const Neuron& neuron, int dtype, int64_t steps, int64_t neurons, Address x, Address out, int threads) {
  const Parameter none = {nullptr, 1, 1};
  const LifInput input =
      lif_input(neuron, dtype, int(Output::spikes), steps, neurons, neurons, x, 0, none, none, nullptr);
  const LifForward call{input, pointer(out), nullptr};
  if (steps * neurons < kSmall) return kernels().lif_forward(call, threads);
  py::gil_scoped_release released;
  kernels().lif_forward(call, threads);
}

inline void define_lif(py::module_& m) {
  py::class_<Neuron>(m, "Neuron").def(py::init(&neuron));
  py::class_<Norm>(m, "Norm").def(py::init(&norm));
  m.def("lif_spikes", &lif_spikes);
  define_lif_forward<int>(m, "lif_forward", on_cpu(&Kernels::lif_forward));
  define_lif_backward<int>(m, "lif_backward", on_cpu(&Kernels::lif_backward));
#if defined(DEAL_CUDA)
  m.attr("lif_segment") = cuda::kSegment;
  define_lif_forward<int, Address>(m, "cuda_lif_forward", on_gpu(cuda::lif_forward));
  define_lif_backward<Address, int, Address>(m, "cuda_lif_backward", on_gpu_with_room(cuda::lif_backward));
#endif
}

}  // namespace bindings
}  // namespace deal
