// SPDX-License-Identifier: Apache-2.0
#include "device/cuda/check.hpp"

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"

namespace tessera::cuda {

namespace {

const char* advice(cudaError_t result) {
  switch (result) {
    case cudaErrorMemoryAllocation:
      return "the device has no more memory; use a higher ZeRO stage or a smaller micro-batch";
    case cudaErrorInsufficientDriver:
      return "the driver is older than the toolkit of this build; update it, or build with an "
             "older "
             "toolkit";
    case cudaErrorNoDevice:
      return "no GPU is visible; check CUDA_VISIBLE_DEVICES and what the job was given";
    case cudaErrorNoKernelImageForDevice:
      return "this build has no code for this GPU; build with its number in "
             "CMAKE_CUDA_ARCHITECTURES";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorAssert:
      return "a kernel failed, maybe one enqueued earlier; run again with CUDA_LAUNCH_BLOCKING=1 "
             "or "
             "compute-sanitizer to see which";
    case cudaErrorDevicesUnavailable:
      return "another process holds the GPU alone (compute mode)";
    default:
      return "see the CUDA runtime's documentation of this code";
  }
}

std::string describe(cudaError_t result, const char* what) {
  return fmt::format("CUDA: {} failed: {} ({}): {}", what, cudaGetErrorString(result),
                     cudaGetErrorName(result), advice(result));
}

}  // namespace

void check_cuda(cudaError_t result, const char* what) {
  if (result == cudaSuccess) [[likely]]
    return;
  cudaGetLastError();  // else the next check of another call would see this error again
  fail(result == cudaErrorMemoryAllocation ? Code::out_of_memory : Code::cuda,
       describe(result, what));
}

void warn_cuda(cudaError_t result, const char* what) noexcept {
  // At the end of the process the driver may be gone before our statics.
  if (result == cudaSuccess || result == cudaErrorCudartUnloading) return;
  try {
    cudaGetLastError();
    log_warning(describe(result, what));
  } catch (...) {  // nothing more can be said
  }
}

}  // namespace tessera::cuda
