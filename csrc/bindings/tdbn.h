// Batch norm for Python.
#pragma once
#include "call.h"

namespace deal {
namespace bindings {

template <class...>
struct Types {};
using Two = Types<Address, Address>;
using Three = Types<Address, Address, Address>;
using Four = Types<Address, Address, Address, Address>;
using Six = Types<Address, Address, Address, Address, Address, Address>;

inline Channels channels(int dtype, int64_t steps, int64_t neurons, int64_t time_stride, int64_t channels, int64_t inner,
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
      ReleaseGil());
}

inline void define_tdbn(py::module_& m) {
  const Types<int> threads;
  define_channels<ChannelMoments>(m, "channel_moments", on_cpu(&Kernels::channel_moments), Two(), threads);
  define_channels<ChannelNormalise>(m, "channel_normalise", on_cpu(&Kernels::channel_normalise), Four(), threads);
  define_channels<ChannelGradientSums>(m, "channel_gradient_sums", on_cpu(&Kernels::channel_gradient_sums), Three(), threads);
  define_channels<ChannelGradient>(m, "channel_gradient", on_cpu(&Kernels::channel_gradient), Six(), threads);
#if defined(DEAL_CUDA)
  const Types<int, Address> place;
  const Types<Address, int, Address> room_and_place;
  m.def("cuda_channel_workspace", &cuda::channel_workspace);
  define_channels<ChannelMoments>(m, "cuda_channel_moments", on_gpu_with_room(cuda::channel_moments), Two(), room_and_place);
  define_channels<ChannelNormalise>(m, "cuda_channel_normalise", on_gpu(cuda::channel_normalise), Four(), place);
  define_channels<ChannelGradientSums>(m, "cuda_channel_gradient_sums", on_gpu_with_room(cuda::channel_gradient_sums),
                                       Three(), room_and_place);
  define_channels<ChannelGradient>(m, "cuda_channel_gradient", on_gpu(cuda::channel_gradient), Six(), place);
#endif
}

}  // namespace bindings
}  // namespace deal
