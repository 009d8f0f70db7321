// How kernels are called from Python: pointers, sizes and streams arrive as integers.
#pragma once
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "../cpu/kernels.h"
#if defined(DEAL_CUDA)
#include "../cuda/kernels.h"
#endif

namespace deal {
namespace bindings {

namespace py = pybind11;
using Address = std::uintptr_t;
using ReleaseGil = py::call_guard<py::gil_scoped_release>;

template <class T = void>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

// The kernel of the set in use, which is chosen by the first call.
template <class Call>
auto on_cpu(void (*Kernels::*kernel)(const Call&, int)) {
  return [kernel](const Call& a, int threads) { (kernels().*kernel)(a, threads); };
}

#if defined(DEAL_CUDA)
inline void check(const char* error) {
  if (error) throw std::runtime_error(error);
}

template <class Kernel>
auto on_gpu(Kernel kernel) {
  return [kernel](const auto& a, int device, Address stream) { check(kernel(a, device, pointer<CUstream_st>(stream))); };
}

// Of a kernel that needs a workspace.
template <class Kernel>
auto on_gpu_with_room(Kernel kernel) {
  return [kernel](const auto& a, Address room, int device, Address stream) {
    check(kernel(a, pointer<float>(room), device, pointer<CUstream_st>(stream)));
  };
}
#endif

}  // namespace bindings
}  // namespace deal
