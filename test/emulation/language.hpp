// SPDX-License-Identifier: Apache-2.0
// The part of CUDA C++ that a host compiler lacks; the emulated build includes it before each .cu
// file. Everything else comes from the toolkit's own headers.
#pragma once

#include <cstddef>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <functional>
#include <math.h>
#include <string_view>

#include "emulation/async_copy.hpp"
#include "emulation/intrinsics.hpp"
#include "emulation/memory_operations.hpp"
#include "emulation/warp.hpp"

// Blocks run one after the other on one OS thread, so what is private to a thread is as good as
// shared by a block. This covers static arrays, also of templates.
#undef __shared__
#define __shared__ thread_local
#define __launch_bounds__(...)
#define __builtin_assume(condition) static_cast<void>(0)

/// Declares `T* name`, the block's dynamic shared memory.
#define DYNAMIC_SHARED(T, name) \
  T* const name = static_cast<T*>(::tessera::emulation::dynamic_shared_memory())

// As device_launch_parameters.h declares them, which host compilers do not get to see. Constant as
// long as one thread runs; the executor changes them when it switches.
extern "C" {
extern const uint3 threadIdx;
extern const uint3 blockIdx;
extern const dim3 blockDim;
extern const dim3 gridDim;
extern const int warpSize;
}

namespace tessera::emulation {

void* dynamic_shared_memory();

/// Puts a grid on a stream; `module` is any address inside the library that holds the kernel, and
/// `name` may be __PRETTY_FUNCTION__ of a function with the kernel as template argument.
cudaError_t launch_from(const void* module, std::string_view name, dim3 blocks, dim3 threads,
                        std::size_t shared_bytes, cudaStream_t stream,
                        std::function<void()> thread);

namespace {
const char module_anchor = 0;  // one for each library, so that its shared memory can be found
}

/// What the project's launch wrapper calls: `thread` runs the kernel with a copy of its arguments.
inline cudaError_t launch(std::string_view name, dim3 blocks, dim3 threads,
                          std::size_t shared_bytes, cudaStream_t stream,
                          std::function<void()> thread) {
  return launch_from(&module_anchor, name, blocks, threads, shared_bytes, stream,
                     std::move(thread));
}

}  // namespace tessera::emulation
