// The neurons with several states for Python.
#pragma once
#include <utility>

#include "call.h"

namespace deal {
namespace bindings {

template <auto member, int k>
constexpr auto set_at = [](auto& call, py::handle value) { assign((call.*member)[k], value); };

// Adds the fields name_0, name_1, ... of the entries of an array.
template <auto member, class Call, int... k>
void add_each(Fields<Call>& fields, const char* const (&names)[sizeof...(k)], std::integer_sequence<int, k...>) {
  (fields.optional(names[k], set_at<member, k>), ...);
}

template <class Call, int... k>
void add_parameters(Fields<Call>& fields, std::integer_sequence<int, k...>) {
  static const char* const data[] = {"parameter_0", "parameter_1", "parameter_2", "parameter_3", "parameter_4"};
  static const char* const channels[] = {"channels_0", "channels_1", "channels_2", "channels_3", "channels_4"};
  static const char* const inner[] = {"inner_0", "inner_1", "inner_2", "inner_3", "inner_4"};
  const auto add = [&fields](auto index) {
    constexpr int i = decltype(index)::value;
    fields.optional(data[i], [](Call& call, py::handle value) { assign(call.parameters[i].data, value); })
        .optional(channels[i], [](Call& call, py::handle value) { assign(call.parameters[i].channels, value); })
        .optional(inner[i], [](Call& call, py::handle value) { assign(call.parameters[i].inner, value); });
  };
  (add(std::integral_constant<int, k>()), ...);
}

using EachState = std::make_integer_sequence<int, kMostStates>;
using EachParameter = std::make_integer_sequence<int, kMostParameters>;

// What both directions are given.
template <class Call>
Fields<Call> multistate_fields(const char* name) {
  Fields<Call> fields(name);
  fields.required("model", set<&Call::model>)
      .required("neuron", set<&Call::neuron>)
      .required("windowed", set<&Call::windowed>)
      .required("low", set<&Call::low>)
      .required("high", set<&Call::high>)
      .required("dtype", set<&Call::dtype>)
      .required("output", set<&Call::output>)
      .required("steps", set<&Call::steps>)
      .required("neurons", set<&Call::neurons>)
      .optional("group", set<&Call::group>)
      .required("time_stride", set<&Call::time_stride>)
      .required("x", set<&Call::x>)
      .optional("number_2", set_at<&Call::numbers, 2>)
      .optional("number_3", set_at<&Call::numbers, 3>)
      .optional("number_4", set_at<&Call::numbers, 4>);
  add_each<&Call::starts>(fields, {"start_0", "start_1", "start_2"}, EachState());
  add_parameters(fields, EachParameter());
  return fields;
}

template <class Call>
void complete_multistate(Call& call) {
  complete(call);
  call.numbers[0] = call.neuron.threshold;
  call.numbers[1] = call.neuron.decay;
}

inline void define_multistate(py::module_& m) {
  py::enum_<Model>(m, "Model", py::module_local())
      .value("cuba", Model::cuba)
      .value("alif", Model::alif)
      .value("lsnn", Model::lsnn)
      .value("clif", Model::clif);
  auto forward = multistate_fields<MultistateForward>("MultistateForward");
  forward.required("out", set<&MultistateForward::out>);
  add_each<&MultistateForward::states>(forward, {"state_0", "state_1", "state_2"}, EachState());
  forward.define(m, complete_multistate<MultistateForward>);
  auto backward = multistate_fields<MultistateBackward>("MultistateBackward");
  backward.required("grad", set<&MultistateBackward::grad>).required("grad_x", set<&MultistateBackward::grad_x>);
  add_each<&MultistateBackward::grad_states>(backward, {"grad_state_0", "grad_state_1", "grad_state_2"}, EachState());
  add_each<&MultistateBackward::grad_starts>(backward, {"grad_start_0", "grad_start_1", "grad_start_2"}, EachState());
  add_each<&MultistateBackward::grad_parameters>(
      backward,
      {"grad_parameter_0", "grad_parameter_1", "grad_parameter_2", "grad_parameter_3", "grad_parameter_4"},
      EachParameter());
  backward.define(m, complete_multistate<MultistateBackward>);
}

inline void define_multistate_cpu(py::module_& cpu) {
  define_cpu<MultistateForward>(cpu, "multistate_forward", &Kernels::multistate_forward);
  define_cpu<MultistateBackward>(cpu, "multistate_backward", &Kernels::multistate_backward);
}

inline void define_multistate_cuda(py::module_& cuda) {
  define_cuda<MultistateForward>(cuda, "multistate_forward", &cuda::multistate_forward);
  define_cuda<MultistateBackward>(cuda, "multistate_backward", &cuda::multistate_backward);
}

}  // namespace bindings
}  // namespace deal
