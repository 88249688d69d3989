// SPDX-License-Identifier: Apache-2.0
// The only way to launch a kernel.
#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>
#include <string>
#include <tuple>
#include <utility>

#include "tessera/device/stream.hpp"

#include "device/cuda/check.hpp"
#include "device/cuda/device_guard.hpp"

#ifdef TESSERA_CUDA_EMULATION
#include "emulation/language.hpp"
#endif

namespace tessera::cuda {

namespace detail {

/// The kernel in "... [with auto Kernel = tessera::kernels::cuda::scale<float>]".
inline std::string kernel_in(const std::string& function) {
  const std::size_t begin = function.find("Kernel = ");
  if (begin == std::string::npos) return function;
  const std::string rest = function.substr(begin + 9);
  return rest.substr(0, rest.find_last_of(']'));
}

template <auto Kernel>
const char* kernel_name() {
  static const std::string name = kernel_in(__PRETTY_FUNCTION__);
  return name.c_str();
}

template <auto Kernel>
struct Launcher;

template <class... Parameters, void (*Kernel)(Parameters...)>
struct Launcher<Kernel> {
  static void launch(cudaStream_t stream, dim3 grid, dim3 block, std::size_t shared_bytes,
                     Parameters... arguments) {
#ifdef TESSERA_CUDA_EMULATION
    check_cuda(
        emulation::launch(kernel_name<Kernel>(), grid, block, shared_bytes, stream,
                          [values = std::make_tuple(arguments...)] { std::apply(Kernel, values); }),
        kernel_name<Kernel>());
#else
    // More than 48 KiB of dynamic shared memory has to be asked for.
    if (shared_bytes > 48 * 1024)
      check_cuda(cudaFuncSetAttribute(Kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(shared_bytes)),
                 kernel_name<Kernel>());
    void* addresses[sizeof...(Parameters) + 1] = {
        const_cast<void*>(static_cast<const void*>(&arguments))..., nullptr};
    check_cuda(cudaLaunchKernel(reinterpret_cast<const void*>(Kernel), grid, block, addresses,
                                shared_bytes, stream),
               kernel_name<Kernel>());
#endif
  }
};

}  // namespace detail

/// Enqueues `Kernel` with arguments converted to its parameters, by value. A grid with a zero
/// dimension launches nothing. Errors: cuda, naming the kernel.
template <auto Kernel, class... Arguments>
void launch(const Stream& stream, dim3 grid, dim3 block, std::size_t shared_bytes,
            Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const DeviceGuard guard(stream.device().index);
  detail::Launcher<Kernel>::launch(static_cast<cudaStream_t>(stream.native_handle()), grid, block,
                                   shared_bytes, arguments...);
}

}  // namespace tessera::cuda
