// What Python sees. Pointers, sizes and streams arrive as integers: nothing of torch is known here.
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "cpu/kernels.h"

#if defined(DEAL_CUDA)
#include "cuda/kernels.h"
#endif

namespace py = pybind11;
using namespace deal;

namespace {

using Address = std::uintptr_t;
constexpr int64_t kSmall = 1 << 14;  // elements that take a few microseconds

template <class...>
struct Types {};
using Two = Types<Address, Address>;
using Three = Types<Address, Address, Address>;
using Four = Types<Address, Address, Address, Address>;
using Six = Types<Address, Address, Address, Address, Address, Address>;

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

Neuron neuron(int charge, int fire, int reset, int surrogate, bool detach_reset, bool multiply, double decay,
              double threshold, double rest, double alpha, double levels) {
  return {Charge(charge), Fire(fire), Reset(reset), Surrogate(surrogate), detach_reset, multiply,
          decay,          threshold,  rest,         alpha,                levels};
}

Norm norm(Address mean, Address scale, Address shift, int64_t channels, int64_t inner, Address shortcut) {
  const auto parameter = [=](Address data) { return Parameter{pointer(data), channels, inner}; };
  return {parameter(mean), parameter(scale), parameter(shift), pointer(shortcut)};
}

LifInput lif_input(Neuron neuron, int dtype, int output, int64_t steps, int64_t neurons, int64_t time_stride, Address x,
                   Address v0, Parameter decay, Parameter threshold, const Norm* norm) {
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
      py::call_guard<py::gil_scoped_release>());
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
      py::call_guard<py::gil_scoped_release>());
}

Channels channels(int dtype, int64_t steps, int64_t neurons, int64_t time_stride, int64_t channels, int64_t inner,
                  Address x) {
  return {DType(dtype), steps, neurons, time_stride, channels, inner, pointer(x)};
}

// Defines a kernel of csrc/tdbn.h: the numbers of Channels, then the addresses its own struct adds, then where.
template <class Call, class... Own, class... Where, class Run>
void define_channels(py::module_& m, const char* name, const Run& run, Types<Own...>, Types<Where...>) {
  m.def(
      name,
      [run](int dtype, int64_t steps, int64_t neurons, int64_t time_stride, int64_t channel_count, int64_t inner, Address x,
            Own... own, Where... where) {
        run(Call{channels(dtype, steps, neurons, time_stride, channel_count, inner, x), pointer(own)...}, where...);
      },
      py::call_guard<py::gil_scoped_release>());
}

// The kernel of the set in use, which is chosen by the first call.
template <class Call>
auto on_cpu(void (*Kernels::*kernel)(const Call&, int)) {
  return [kernel](const Call& a, int threads) { (kernels().*kernel)(a, threads); };
}

// The commonest call. It has few arguments, and keeps the GIL over a small layer, because
// either costs as much as the kernel then.
void lif_spikes(const Neuron& neuron, int dtype, int64_t steps, int64_t neurons, Address x, Address out, int threads) {
  const Parameter none = {nullptr, 1, 1};
  const LifInput input =
      lif_input(neuron, dtype, int(Output::spikes), steps, neurons, neurons, x, 0, none, none, nullptr);
  const LifForward call{input, pointer(out), nullptr};
  if (steps * neurons < kSmall) return kernels().lif_forward(call, threads);
  py::gil_scoped_release released;
  kernels().lif_forward(call, threads);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  py::class_<Neuron>(m, "Neuron").def(py::init(&neuron));
  py::class_<Norm>(m, "Norm").def(py::init(&norm));
  m.def("isa", [] { return kernels().isa; });
#if defined(_OPENMP)
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
  m.def("lif_spikes", &lif_spikes);
  define_lif_forward<int>(m, "lif_forward", on_cpu(&Kernels::lif_forward));
  define_lif_backward<int>(m, "lif_backward", on_cpu(&Kernels::lif_backward));
  const Types<int> threads;
  define_channels<ChannelMoments>(m, "channel_moments", on_cpu(&Kernels::channel_moments), Two(), threads);
  define_channels<ChannelNormalise>(m, "channel_normalise", on_cpu(&Kernels::channel_normalise), Four(), threads);
  define_channels<ChannelGradientSums>(m, "channel_gradient_sums", on_cpu(&Kernels::channel_gradient_sums), Three(), threads);
  define_channels<ChannelGradient>(m, "channel_gradient", on_cpu(&Kernels::channel_gradient), Six(), threads);

#if defined(DEAL_CUDA)
  const auto check = [](const char* error) {
    if (error) throw std::runtime_error(error);
  };
  const auto on_gpu = [=](auto kernel) {
    return [=](const auto& a, int device, Address stream) {
      check(kernel(a, device, static_cast<CUstream_st*>(pointer(stream))));
    };
  };
  const auto with_room = [=](auto kernel) {
    return [=](const auto& a, Address room, int device, Address stream) {
      check(kernel(a, static_cast<float*>(pointer(room)), device, static_cast<CUstream_st*>(pointer(stream))));
    };
  };
  m.attr("cuda_architectures") = DEAL_CUDA;
  m.attr("lif_segment") = cuda::kSegment;
  define_lif_forward<int, Address>(m, "cuda_lif_forward", on_gpu(cuda::lif_forward));
  define_lif_backward<Address, int, Address>(m, "cuda_lif_backward", with_room(cuda::lif_backward));
  const Types<int, Address> place;
  const Types<Address, int, Address> room_and_place;
  m.def("cuda_channel_workspace", &cuda::channel_workspace);
  define_channels<ChannelMoments>(m, "cuda_channel_moments", with_room(cuda::channel_moments), Two(), room_and_place);
  define_channels<ChannelNormalise>(m, "cuda_channel_normalise", on_gpu(cuda::channel_normalise), Four(), place);
  define_channels<ChannelGradientSums>(m, "cuda_channel_gradient_sums", with_room(cuda::channel_gradient_sums), Three(),
                                       room_and_place);
  define_channels<ChannelGradient>(m, "cuda_channel_gradient", on_gpu(cuda::channel_gradient), Six(), place);
#endif
}
