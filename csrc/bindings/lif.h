// The neuron for Python.
#pragma once
#include "call.h"

namespace deal {
namespace bindings {

inline void define_lif_enums(py::module_& m) {
  py::enum_<Output>(m, "Output", py::module_local())
      .value("spikes", Output::spikes)
      .value("mean", Output::mean)
      .value("packed", Output::packed)
      .value("states", Output::states)
      .value("membranes", Output::membranes);
  py::enum_<Charge>(m, "Charge", py::module_local())
      .value("decay_input", Charge::decay_input)
      .value("decay", Charge::decay)
      .value("beta", Charge::beta);
  py::enum_<Fire>(m, "Fire", py::module_local())
      .value("ge", Fire::ge)
      .value("gt", Fire::gt)
      .value("levels", Fire::levels);
  py::enum_<Reset>(m, "Reset", py::module_local())
      .value("hard", Reset::hard)
      .value("soft", Reset::soft)
      .value("none", Reset::none)
      .value("next_hard", Reset::next_hard)
      .value("next_soft", Reset::next_soft)
      .value("twice_soft", Reset::twice_soft);
  py::enum_<Surrogate>(m, "Surrogate", py::module_local())
      .value("sigmoid", Surrogate::sigmoid)
      .value("atan", Surrogate::atan)
      .value("triangle", Surrogate::triangle)
      .value("rectangle", Surrogate::rectangle)
      .value("fast_sigmoid", Surrogate::fast_sigmoid)
      .value("erf", Surrogate::erf)
      .value("exponential", Surrogate::exponential)
      .value("sides", Surrogate::sides)
      .value("window", Surrogate::window)
      .value("given", Surrogate::given);
}

inline void define_neuron(py::module_& m) {
  Fields<Neuron>("Neuron")
      .required("charge", set<&Neuron::charge>)
      .required("fire", set<&Neuron::fire>)
      .required("reset", set<&Neuron::reset>)
      .required("surrogate", set<&Neuron::surrogate>)
      .required("detach_reset", set<&Neuron::detach_reset>)
      .required("carries", set<&Neuron::carries>)
      .required("rate", set<&Neuron::rate>)
      .required("own_amount", set<&Neuron::own_amount>)
      .required("decay", set<&Neuron::decay>)
      .required("threshold", set<&Neuron::threshold>)
      .required("rest", set<&Neuron::rest>)
      .required("reset_to", set<&Neuron::reset_to>)
      .required("amount", set<&Neuron::amount>)
      .required("alpha", set<&Neuron::alpha>)
      .required("height", set<&Neuron::height>)
      .required("outside", set<&Neuron::outside>)
      .required("levels", set<&Neuron::levels>)
      .required("scale", set<&Neuron::scale>)
      .define(m);
}

inline void define_norm(py::module_& m) {
  Fields<Norm>("Norm")
      .required("mean", [](Norm& norm, py::handle value) { norm.mean.data = pointer(value); })
      .required("scale", [](Norm& norm, py::handle value) { norm.scale.data = pointer(value); })
      .required("shift", [](Norm& norm, py::handle value) { norm.shift.data = pointer(value); })
      .required("channels", [](Norm& norm, py::handle value) { norm.mean.channels = value.cast<int64_t>(); })
      .required("inner", [](Norm& norm, py::handle value) { norm.mean.inner = value.cast<int64_t>(); })
      .optional("shortcut", set<&Norm::shortcut>)
      .define(m, [](Norm& norm) {
        norm.scale.channels = norm.shift.channels = norm.mean.channels;
        norm.scale.inner = norm.shift.inner = norm.mean.inner;
      });
}

// What both directions are given.
template <class Call>
Fields<Call> lif_fields(const char* name) {
  return Fields<Call>(name)
      .required("neuron", set<&Call::neuron>)
      .required("dtype", set<&Call::dtype>)
      .required("output", set<&Call::output>)
      .required("steps", set<&Call::steps>)
      .required("neurons", set<&Call::neurons>)
      .required("time_stride", set<&Call::time_stride>)
      .optional("group", set<&Call::group>)
      .required("x", set<&Call::x>)
      .optional("v0", set<&Call::v0>)
      .optional("decay", [](Call& call, py::handle value) { call.decay.data = pointer(value); })
      .optional("decay_channels", [](Call& call, py::handle value) { call.decay.channels = value.cast<int64_t>(); })
      .optional("decay_inner", [](Call& call, py::handle value) { call.decay.inner = value.cast<int64_t>(); })
      .optional("threshold", [](Call& call, py::handle value) { call.threshold.data = pointer(value); })
      .optional("threshold_channels",
                [](Call& call, py::handle value) { call.threshold.channels = value.cast<int64_t>(); })
      .optional("threshold_inner", [](Call& call, py::handle value) { call.threshold.inner = value.cast<int64_t>(); })
      .optional("norm", [](Call& call, py::handle value) {
        if (!value.is_none()) call.norm = value.cast<Norm>();
      });
}

inline void define_lif(py::module_& m) {
  define_lif_enums(m);
  define_neuron(m);
  define_norm(m);
  lif_fields<LifForward>("LifForward")
      .required("out", set<&LifForward::out>)
      .optional("v", set<&LifForward::v>)
      .define(m, &complete<LifForward>);
  lif_fields<LifBackward>("LifBackward")
      .optional("constant", set<&LifBackward::constant>)
      .required("grad", set<&LifBackward::grad>)
      .optional("grad_v", set<&LifBackward::grad_v>)
      .optional("slopes", set<&LifBackward::slopes>)
      .required("grad_x", set<&LifBackward::grad_x>)
      .optional("grad_v0", set<&LifBackward::grad_v0>)
      .optional("grad_decay", set<&LifBackward::grad_decay>)
      .optional("grad_threshold", set<&LifBackward::grad_threshold>)
      .optional("norm_sums", set<&LifBackward::norm_sums>)
      .define(m, &complete<LifBackward>);
}

constexpr int64_t kSmall = 1 << 14;  // neurons times steps that take a few microseconds

// The most frequent call. Its arguments are positional, and it keeps the GIL for a small layer: keywords and the GIL
// cost as much as the kernel there.
inline void lif_spikes(const Neuron& neuron, DType dtype, int64_t steps, int64_t neurons, int64_t group, Address x,
                       Address out, int threads) {
  LifForward call{};
  call.neuron = neuron;
  call.dtype = dtype;
  call.steps = steps;
  call.neurons = neurons;
  call.group = call.time_stride = group;
  call.x = reinterpret_cast<const void*>(x);
  call.out = reinterpret_cast<void*>(out);
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
  cuda.def("sums_by_channel", &cuda::sums_by_channel);
}

}  // namespace bindings
}  // namespace deal
