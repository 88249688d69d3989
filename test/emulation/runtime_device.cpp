// SPDX-License-Identifier: Apache-2.0
// The runtime's calls about devices, errors and kernels.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_runtime_api.h>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "emulation/device_state.hpp"
#include "emulation/emulation.hpp"
#include "emulation/executor.hpp"
#include "emulation/graphs.hpp"
#include "emulation/memory.hpp"
#include "emulation/streams.hpp"

namespace tessera::emulation {

namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr std::size_t kSharedBytes = std::size_t{48} << 10;
constexpr std::size_t kSharedBytesOnRequest = std::size_t{227} << 10;
// Few, so that grids that fill the device stay small.
constexpr int kMultiprocessors = 8;

int devices() {
  static const int count = [] {
    const char* text = std::getenv("TESSERA_EMULATED_DEVICES");
    return text == nullptr ? 1 : std::max(0, std::atoi(text));
  }();
  return count;
}

thread_local int chosen_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

// The properties of an H100 where nothing else is said.
const std::map<cudaDeviceAttr, int>& attributes() {
  static const std::map<cudaDeviceAttr, int> all = {
      {cudaDevAttrMaxThreadsPerBlock, static_cast<int>(kMaxThreads)},
      {cudaDevAttrMaxSharedMemoryPerBlock, static_cast<int>(kSharedBytes)},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, static_cast<int>(kSharedBytesOnRequest)},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 228 << 10},
      {cudaDevAttrWarpSize, 32},
      {cudaDevAttrMultiProcessorCount, kMultiprocessors},
      {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
      {cudaDevAttrMaxBlocksPerMultiprocessor, 32},
      {cudaDevAttrMaxRegistersPerBlock, 65536},
      {cudaDevAttrMaxRegistersPerMultiprocessor, 65536},
      {cudaDevAttrMaxGridDimX, 2147483647},
      {cudaDevAttrMaxGridDimY, 65535},
      {cudaDevAttrMaxGridDimZ, 65535},
      {cudaDevAttrComputeCapabilityMajor, 9},
      {cudaDevAttrComputeCapabilityMinor, 0},
      {cudaDevAttrMemoryPoolsSupported, 1},
      {cudaDevAttrUnifiedAddressing, 1},
      {cudaDevAttrConcurrentKernels, 1},
      {cudaDevAttrL2CacheSize, 50 << 20},
      {cudaDevAttrIntegrated, 0},
      {cudaDevAttrPageableMemoryAccess, 0},
      {cudaDevAttrGPUDirectRDMASupported, 0},
  };
  return all;
}

int attribute(cudaDeviceAttr name) {
  return attributes().at(name);
}

bool fits_device(dim3 blocks, dim3 threads, std::size_t shared_bytes) {
  const auto product = std::uint64_t{threads.x} * threads.y * threads.z;
  return product > 0 && product <= kMaxThreads && threads.z <= 64 && blocks.x <= 2147483647 &&
         blocks.y <= 65535 && blocks.z <= 65535 && blocks.x > 0 && blocks.y > 0 && blocks.z > 0 &&
         shared_bytes <= kSharedBytesOnRequest;
}

}  // namespace

int current_device() {
  return chosen_device;
}

cudaError_t set_last_error(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) {
    last_error = error;
  }
  return error;
}

cudaError_t launch_from(const void* module, std::string_view name, dim3 blocks, dim3 threads,
                        std::size_t shared_bytes, cudaStream_t stream,
                        std::function<void()> thread) {
  const Guard guard(mutex());
  const std::string kernel = kernel_name(name);
  if (!usable(stream, kernel.c_str())) {
    return set_last_error(cudaErrorInvalidResourceHandle);
  }
  if (!fits_device(blocks, threads, shared_bytes)) {
    return set_last_error(cudaErrorInvalidConfiguration);
  }
  if (device_of(stream) != current_device()) {
    report_fault(FaultKind::misuse,
                 fmt::format("kernel {} is launched on a stream of device {} while device {} is "
                             "the current one",
                             kernel, device_of(stream), current_device()));
    return set_last_error(cudaErrorInvalidResourceHandle);
  }
  return enqueue(stream, "kernel " + kernel,
                 [grid = Grid{kernel, blocks, threads, shared_bytes, module, std::move(thread)}] {
                   execute(grid);
                   return true;
                 });
}

}  // namespace tessera::emulation

using namespace tessera::emulation;  // NOLINT: the rest of the file is the runtime's C interface

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = devices();
  return devices() > 0 ? cudaSuccess : set_last_error(cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int* device) {
  *device = chosen_device;
  return devices() > 0 ? cudaSuccess : set_last_error(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= devices()) {
    return set_last_error(cudaErrorInvalidDevice);
  }
  chosen_device = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr name, int device) {
  const auto found = attributes().find(name);
  if (device < 0 || device >= devices() || found == attributes().end()) {
    return set_last_error(cudaErrorInvalidValue);
  }
  *value = found->second;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= devices()) {
    return set_last_error(cudaErrorInvalidDevice);
  }
  cudaDeviceProp& p = *properties = {};
  std::snprintf(p.name, sizeof(p.name), "emulated GPU %d", device);
  std::memset(p.uuid.bytes, device + 1, sizeof(p.uuid.bytes));
  p.totalGlobalMem = memory_use(device).total;
  p.sharedMemPerBlock = kSharedBytes;
  p.sharedMemPerBlockOptin = kSharedBytesOnRequest;
  p.sharedMemPerMultiprocessor =
      static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor));
  p.regsPerBlock = attribute(cudaDevAttrMaxRegistersPerBlock);
  p.regsPerMultiprocessor = attribute(cudaDevAttrMaxRegistersPerMultiprocessor);
  p.warpSize = 32;
  p.maxThreadsPerBlock = static_cast<int>(kMaxThreads);
  p.maxThreadsPerMultiProcessor = attribute(cudaDevAttrMaxThreadsPerMultiProcessor);
  p.maxBlocksPerMultiProcessor = attribute(cudaDevAttrMaxBlocksPerMultiprocessor);
  const int threads[3] = {1024, 1024, 64};
  const int blocks[3] = {2147483647, 65535, 65535};
  std::copy_n(threads, 3, p.maxThreadsDim);
  std::copy_n(blocks, 3, p.maxGridSize);
  p.major = attribute(cudaDevAttrComputeCapabilityMajor);
  p.minor = attribute(cudaDevAttrComputeCapabilityMinor);
  p.multiProcessorCount = kMultiprocessors;
  p.l2CacheSize = attribute(cudaDevAttrL2CacheSize);
  p.concurrentKernels = 1;
  p.unifiedAddressing = 1;
  p.canMapHostMemory = 1;
  p.streamPrioritiesSupported = 1;
  p.memoryPoolsSupported = 1;
  p.memoryBusWidth = 5120;
  p.pciBusID = device + 1;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  if (device < 0 || device >= devices()) {
    return set_last_error(cudaErrorInvalidDevice);
  }
  std::snprintf(text, static_cast<std::size_t>(length), "0000:%02x:00.0", device + 1);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  const Guard guard(mutex());
  if (const cudaError_t error = refuse_device_wait(current_device()); error != cudaSuccess) {
    return set_last_error(error);
  }
  return set_last_error(finish_device(current_device()));
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = devices() > 0 ? CUDART_VERSION : 0;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

// Kernels have no names here that these could refer to; limits are checked at the launch.
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute name, int value) {
  if (name == cudaFuncAttributeMaxDynamicSharedMemorySize &&
      (value < 0 || static_cast<std::size_t>(value) > kSharedBytesOnRequest)) {
    return set_last_error(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

// ---- errors ----

cudaError_t cudaGetLastError() {
  return std::exchange(last_error, cudaSuccess);
}

cudaError_t cudaPeekAtLastError() {
  return last_error;
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorInvalidMemcpyDirection:
      return "cudaErrorInvalidMemcpyDirection";
    case cudaErrorNotSupported:
      return "cudaErrorNotSupported";
    case cudaErrorIllegalState:
      return "cudaErrorIllegalState";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureUnmatched:
      return "cudaErrorStreamCaptureUnmatched";
    case cudaErrorStreamCaptureUnjoined:
      return "cudaErrorStreamCaptureUnjoined";
    case cudaErrorStreamCaptureIsolation:
      return "cudaErrorStreamCaptureIsolation";
    case cudaErrorStreamCaptureMerge:
      return "cudaErrorStreamCaptureMerge";
    case cudaErrorCapturedEvent:
      return "cudaErrorCapturedEvent";
    default:
      return "unrecognized error code";
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    default:
      return "see the name of the error";
  }
}

}  // extern "C"
