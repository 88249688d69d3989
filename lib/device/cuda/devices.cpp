// SPDX-License-Identifier: Apache-2.0
// Which GPUs there are and which one a rank takes.
#include <cuda_runtime_api.h>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/device/cuda.hpp"

#include "device/cuda/check.hpp"
#include "device/cuda/device_guard.hpp"

namespace tessera {

namespace {

struct Probe {
  int count = 0;
  std::string reason;
};

Probe probe() {
  Probe found;
  const cudaError_t result = cudaGetDeviceCount(&found.count);
  if (result == cudaSuccess && found.count > 0) return found;
  cudaGetLastError();
  found.count = 0;
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    found.reason = "no NVIDIA driver on this machine";
  else if (result == cudaErrorInsufficientDriver)
    found.reason = fmt::format("the driver knows CUDA up to {}, this build needs {}",
                               cuda_driver_version(), cuda_build_version());
  else if (result == cudaErrorNoDevice || result == cudaSuccess)
    found.reason = "a driver, but no visible GPU (CUDA_VISIBLE_DEVICES, or what the job was given)";
  else
    found.reason = fmt::format("{} ({})", cudaGetErrorString(result), cudaGetErrorName(result));
  cudaGetLastError();
  return found;
}

// GPUs do not come and go while a process runs.
const Probe& probed() {
  static const Probe found = probe();
  return found;
}

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

std::string identity_text(const cudaDeviceProp& properties) {
  std::string text = "GPU-";
  for (const char byte : properties.uuid.bytes)
    text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

}  // namespace

int cuda_device_count() {
  return probed().count;
}

std::string cuda_unavailable_reason() {
  return probed().reason;
}

std::string cuda_build_version() {
  return version_text(CUDART_VERSION);
}

std::string cuda_driver_version() {
  int version = 0;
  if (cudaDriverGetVersion(&version) != cudaSuccess || version == 0) {
    cudaGetLastError();
    return "";
  }
  return version_text(version);
}

CudaDeviceInfo describe_cuda_device(Device device) {
  TESSERA_CHECK(!device.is_cpu() && device.index >= 0 && device.index < cuda_device_count(),
                Code::invalid_argument,
                fmt::format("there is no {}: this process sees {} GPUs", device.to_string(),
                            cuda_device_count()));
  cudaDeviceProp properties{};
  cuda::check_cuda(cudaGetDeviceProperties(&properties, device.index), "describing a GPU");
  CudaDeviceInfo info{properties.name,
                      identity_text(properties),
                      properties.major,
                      properties.minor,
                      properties.multiProcessorCount,
                      0,
                      0};
  const cuda::DeviceGuard guard(device.index);
  std::size_t free = 0, total = 0;
  cuda::check_cuda(cudaMemGetInfo(&free, &total), "asking for free memory");
  info.free_memory = static_cast<std::int64_t>(free);
  info.total_memory = static_cast<std::int64_t>(total);
  return info;
}

Device device_of_address(const void* address) {
  if (cuda_device_count() == 0) return {};
  cudaPointerAttributes attributes{};
  cuda::check_cuda(cudaPointerGetAttributes(&attributes, address), "asking where an array lies");
  if (attributes.type != cudaMemoryTypeDevice) return {};
  return {DeviceType::cuda, attributes.device};
}

Device choose_cuda_device(int local_rank, int local_ranks) {
  const int count = cuda_device_count();
  TESSERA_CHECK(count > 0, Code::not_supported,
                "device: cuda needs a GPU: " + cuda_unavailable_reason());
  TESSERA_CHECK(local_rank >= 0 && local_rank < local_ranks, Code::invalid_argument,
                fmt::format("local rank {} of {}", local_rank, local_ranks));
  // With one visible device nobody can tell here whether it is the neighbour's too.
  if (count > 1 && count < local_ranks && local_rank == 0)
    log_warning_once(
        fmt::format("{} ranks share the {} GPUs of this node: start one rank for each GPU",
                    local_ranks, count));
  return {DeviceType::cuda, local_rank % count};
}

}  // namespace tessera
