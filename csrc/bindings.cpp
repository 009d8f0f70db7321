// What Python sees. Pointers, sizes and streams arrive as integers: nothing of torch is known here.
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "cpu/kernels.h"
#include "lif.h"

#if defined(DEAL_CUDA)
#include "cuda/kernels.h"
#endif

namespace py = pybind11;
using namespace deal;

namespace {

using Address = std::uintptr_t;
constexpr int64_t kSmall = 1 << 14;  // elements that take a few microseconds

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

Neuron neuron(int charge, int fire, int reset, int surrogate, bool detach_reset, bool multiply, double decay,
              double threshold, double rest, double alpha, double levels) {
  return {Charge(charge), Fire(fire), Reset(reset), Surrogate(surrogate), detach_reset, multiply,
          decay,          threshold,  rest,         alpha,                levels};
}

LifInput lif_input(Neuron neuron, int dtype, int output, int64_t steps, int64_t neurons, int64_t time_stride, Address x,
                   Address v0, Parameter decay, Parameter threshold) {
  neuron.multiply = neuron.multiply && !decay.data;
  return {neuron, DType(dtype), Output(output), steps, neurons, time_stride, pointer(x), pointer(v0), decay, threshold};
}

// Where is what the kernel runs on: a thread count, or a device and a stream.
template <class... Where, class Run>
void define_lif_forward(py::module_& m, const char* name, const Run& run) {
  m.def(
      name,
      [run](const Neuron& neuron, int dtype, int output, int64_t steps, int64_t neurons, int64_t time_stride, Address x,
            Address v0, Address decay, int64_t decay_channels, Address threshold, int64_t threshold_channels,
            int64_t inner, Address out, Address v, Where... where) {
        const LifInput input = lif_input(neuron, dtype, output, steps, neurons, time_stride, x, v0,
                                         {pointer(decay), decay_channels, inner},
                                         {pointer(threshold), threshold_channels, inner});
        run(LifForward{input, pointer(out), pointer(v)}, where...);
      },
      py::call_guard<py::gil_scoped_release>());
}

template <class... Where, class Run>
void define_lif_backward(py::module_& m, const char* name, const Run& run) {
  m.def(
      name,
      [run](const Neuron& neuron, int dtype, int output, int64_t steps, int64_t neurons, int64_t time_stride, Address x,
            Address v0, Address decay, int64_t decay_channels, Address threshold, int64_t threshold_channels,
            int64_t inner, bool constant, Address grad, Address grad_v, Address grad_x, Address grad_v0,
            Address grad_decay, Address grad_threshold, Where... where) {
        const LifInput input = lif_input(neuron, dtype, output, steps, neurons, time_stride, x, v0,
                                         {pointer(decay), decay_channels, inner},
                                         {pointer(threshold), threshold_channels, inner});
        run(LifBackward{input, constant, pointer(grad), pointer(grad_v), pointer(grad_x), pointer(grad_v0),
                        pointer(grad_decay), pointer(grad_threshold)},
            where...);
      },
      py::call_guard<py::gil_scoped_release>());
}

// The commonest call. It has few arguments, and keeps the GIL over a small layer, because
// either costs as much as the kernel then.
void lif_spikes(const Neuron& neuron, int dtype, int64_t steps, int64_t neurons, Address x, Address out, int threads) {
  const LifInput input = lif_input(neuron, dtype, int(Output::spikes), steps, neurons, neurons, x, 0, {nullptr, 1, 1}, {nullptr, 1, 1});
  const LifForward call{input, pointer(out), nullptr};
  if (steps * neurons < kSmall) return kernels().lif_forward(call, threads);
  py::gil_scoped_release released;
  kernels().lif_forward(call, threads);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  py::class_<Neuron>(m, "Neuron").def(py::init(&neuron));
  m.def("isa", [] { return kernels().isa; });
#if defined(_OPENMP)
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
  m.def("lif_spikes", &lif_spikes);
  define_lif_forward<int>(m, "lif_forward", [](const LifForward& a, int threads) { kernels().lif_forward(a, threads); });
  define_lif_backward<int>(m, "lif_backward", [](const LifBackward& a, int threads) { kernels().lif_backward(a, threads); });

#if defined(DEAL_CUDA)
  const auto check = [](const char* error) {
    if (error) throw std::runtime_error(error);
  };
  m.attr("cuda_architectures") = DEAL_CUDA;
  m.attr("lif_segment") = cuda::kSegment;
  define_lif_forward<int, Address>(m, "cuda_lif_forward", [=](const LifForward& a, int device, Address stream) {
    check(cuda::lif_forward(a, device, static_cast<CUstream_st*>(pointer(stream))));
  });
  define_lif_backward<Address, int, Address>(
      m, "cuda_lif_backward", [=](const LifBackward& a, Address starts, int device, Address stream) {
        check(cuda::lif_backward(a, static_cast<float*>(pointer(starts)), device, static_cast<CUstream_st*>(pointer(stream))));
      });
#endif
}
