// SPDX-License-Identifier: Apache-2.0
#include "device/cuda/device_pool.hpp"

#include <cstdint>
#include <cuda_runtime_api.h>
#include <limits>
#include <map>
#include <mutex>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/device/cuda.hpp"

#include "device/cuda/arena_blocks.hpp"
#include "device/cuda/check.hpp"
#include "device/cuda/device_guard.hpp"

namespace tessera::cuda {

namespace {

cudaMemPool_t create_pool(int device) {
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool = nullptr;
  check_cuda(cudaMemPoolCreate(&pool, &properties), "creating a memory pool");
  std::uint64_t keep = std::numeric_limits<std::uint64_t>::max();
  check_cuda(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
             "setting up a memory pool");
  return pool;
}

// One pool a device, of our own: the default pool belongs to the user. Never destroyed, as buffers
// in statics may outlive everything.
cudaMemPool_t pool_of(int device) {
  static auto* mutex = new std::mutex;
  static auto* pools = new std::map<int, cudaMemPool_t>;
  const std::lock_guard lock(*mutex);
  auto found = pools->find(device);
  if (found == pools->end()) found = pools->emplace(device, create_pool(device)).first;
  return found->second;
}

cudaError_t try_allocate(void** data, std::size_t bytes, int device, cudaStream_t stream) {
  const cudaError_t result = cudaMallocFromPoolAsync(data, bytes, pool_of(device), stream);
  if (result == cudaErrorMemoryAllocation) cudaGetLastError();
  return result;
}

std::string out_of_memory_text(std::size_t bytes, Device device, Purpose purpose) {
  std::size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) cudaGetLastError();
  return fmt::format(
      "could not allocate {} for {} on {}, which has {} free of {}. In use by this rank:\n{}To "
      "need "
      "less: a higher engine.zero_optimization.stage, more GPUs, offload of the optimizer to host "
      "memory, recomputation of activations, or a smaller engine.train_micro_batch_size_per_gpu "
      "with more gradient_accumulation_steps",
      format_bytes(static_cast<double>(bytes)), to_string(purpose), device.to_string(),
      format_bytes(static_cast<double>(free)), format_bytes(static_cast<double>(total)),
      memory_ledger(device).to_string());
}

}  // namespace

void* take_memory(std::size_t bytes, const Stream& stream, Purpose purpose) {
  const Device device = stream.device();
  const auto handle = static_cast<cudaStream_t>(stream.native_handle());
  const DeviceGuard guard(device.index);
  void* data = nullptr;
  cudaError_t result = try_allocate(&data, bytes, device.index, handle);
  if (result == cudaErrorMemoryAllocation) {
    // What was freed may still wait for its turn on the streams.
    check_cuda(cudaDeviceSynchronize(), "waiting for memory that was freed");
    trim_device(device);
    result = try_allocate(&data, bytes, device.index, handle);
  }
  TESSERA_CHECK(result != cudaErrorMemoryAllocation, Code::out_of_memory,
                out_of_memory_text(bytes, device, purpose));
  check_cuda(result, "allocating device memory");
  return data;
}

void release_memory(void* memory, const Stream& stream) {
  warn_cuda(cudaFreeAsync(memory, static_cast<cudaStream_t>(stream.native_handle())),
            "freeing device memory");
}

Buffer allocate_device(std::size_t bytes, Device device, Purpose purpose) {
  const Stream stream = current_stream(device);
  if (const auto arena = Arena::Blocks::current(stream)) return arena->allocate(bytes, purpose);
  return Buffer(take_memory(bytes, stream, purpose), bytes, device, purpose,
                [stream](void* block, std::size_t) { release_memory(block, stream); });
}

void trim_device(Device device) {
  const DeviceGuard guard(device.index);
  check_cuda(cudaMemPoolTrimTo(pool_of(device.index), 0), "giving free device memory back");
}

}  // namespace tessera::cuda
