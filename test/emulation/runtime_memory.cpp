// SPDX-License-Identifier: Apache-2.0
// The runtime's calls about memory: allocations, copies and fills.
#include <cstring>
#include <cuda_runtime_api.h>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "emulation/device_state.hpp"
#include "emulation/emulation.hpp"
#include "emulation/graphs.hpp"
#include "emulation/memory.hpp"
#include "emulation/protection.hpp"
#include "emulation/streams.hpp"
#include "emulation/traffic.hpp"

struct CUmemPoolHandle_st {
  int device = 0;
  bool destroyed = false;
};

namespace tessera::emulation {

namespace {

// Both sides of a copy, checked when the copy is asked for and again when it runs: until then
// memory may have been freed.
struct Side {
  const void* address;
  bool is_target;
};

bool inside_allocation(const Side& side, std::size_t bytes, const char* call, bool running) {
  const auto found = find_allocation(side.address);
  if (!found || bytes == 0) {
    return true;  // pageable memory of the host, about which nothing is known
  }
  const auto offset = static_cast<const std::byte*>(side.address) - found->begin;
  const bool fits = offset >= 0 && static_cast<std::size_t>(offset) <= found->bytes &&
                    bytes <= found->bytes - static_cast<std::size_t>(offset);
  const bool exists = found->stage == Allocation::Stage::live ||
                      (found->stage == Allocation::Stage::reserved && !running);
  if (!fits || !exists) {
    report_fault(FaultKind::memory,
                 fmt::format("{} {} {} bytes at {}", call, side.is_target ? "writes" : "reads",
                             bytes, describe_address(side.address)));
  }
  return fits && exists;
}

bool on_device(const void* address) {
  const auto found = find_allocation(address);
  return found && found->kind == MemoryKind::device;
}

bool pageable(const void* address) {
  return !find_allocation(address);
}

bool direction_is_right(void* target, const void* source, cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyDefault:
      return true;
    case cudaMemcpyHostToHost:
      return !on_device(target) && !on_device(source);
    case cudaMemcpyHostToDevice:
      return on_device(target) && !on_device(source);
    case cudaMemcpyDeviceToHost:
      return !on_device(target) && on_device(source);
    case cudaMemcpyDeviceToDevice:
      return on_device(target) && on_device(source);
  }
  return false;
}

cudaError_t enqueue_copy(void* target, const void* source, std::size_t bytes, cudaStream_t stream,
                         std::shared_ptr<std::vector<std::byte>> staged) {
  return enqueue(stream, fmt::format("a copy of {} bytes", bytes), [=] {
    if (inside_allocation({target, true}, bytes, "cudaMemcpyAsync", true) &&
        (staged || inside_allocation({source, false}, bytes, "cudaMemcpyAsync", true))) {
      std::memmove(target, staged ? staged->data() : source, bytes);
    }
    return true;
  });
}

cudaError_t copy(void* target, const void* source, std::size_t bytes, cudaMemcpyKind kind,
                 cudaStream_t stream) {
  if (!usable(stream, "cudaMemcpyAsync")) {
    return cudaErrorInvalidResourceHandle;
  }
  if (!direction_is_right(target, source, kind)) {
    report_fault(
        FaultKind::memory,
        fmt::format("cudaMemcpyAsync with kind {} copies between {} and {}", static_cast<int>(kind),
                    describe_address(source), describe_address(target)));
    return cudaErrorInvalidMemcpyDirection;
  }
  if (!inside_allocation({target, true}, bytes, "cudaMemcpyAsync", false) ||
      !inside_allocation({source, false}, bytes, "cudaMemcpyAsync", false)) {
    return cudaErrorInvalidValue;
  }
  // Pageable memory goes through a buffer of the driver: a source may be reused after the call, and
  // a target is complete (CUDA Runtime API, synchronization behavior of memory copies).
  if (is_capturing(stream) && (pageable(source) || pageable(target))) {
    report_fault(
        FaultKind::misuse,
        "cudaMemcpyAsync with pageable memory is captured: a replay would use what is there "
        "by then");
    return refuse_in_capture(stream);
  }
  std::shared_ptr<std::vector<std::byte>> staged;
  if (pageable(source) && !pageable(target)) {
    const auto* begin = static_cast<const std::byte*>(source);
    staged = std::make_shared<std::vector<std::byte>>(begin, begin + bytes);
  }
  const cudaError_t error = enqueue_copy(target, source, bytes, stream, std::move(staged));
  return error == cudaSuccess && pageable(target) ? finish_stream(stream) : error;
}

cudaError_t allocate(void** data, std::size_t bytes, int device, cudaStream_t stream) {
  *data = nullptr;
  if (bytes == 0) {
    return cudaSuccess;
  }
  if (stream == nullptr) {
    if (const cudaError_t error = refuse_unsafe_call(); error != cudaSuccess) {
      return error;
    }
  } else if (is_capturing(stream)) {
    report_fault(FaultKind::misuse, "an allocation is captured, which the emulation does not know");
    return refuse_in_capture(stream);
  }
  const ClosesMemory closes;
  const auto allocation = allocate_device(bytes, device, stream == nullptr);
  if (!allocation) {
    return cudaErrorMemoryAllocation;
  }
  *data = allocation->begin;
  if (stream == nullptr) {
    return cudaSuccess;
  }
  return enqueue(stream, "cudaMallocAsync", [begin = allocation->begin] {
    make_ready(begin);
    return true;
  });
}

cudaError_t release_or_report(void* data, MemoryKind kind, const char* call) {
  if (release(data, kind)) {
    return cudaSuccess;
  }
  report_fault(FaultKind::memory, fmt::format("{} frees {}", call, describe_address(data)));
  return cudaErrorInvalidValue;
}

}  // namespace

}  // namespace tessera::emulation

using namespace tessera::emulation;  // NOLINT: the rest of the file is the runtime's C interface

extern "C" {

// ---- device memory ----

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  const Guard guard(mutex());
  return set_last_error(allocate(data, bytes, current_device(), nullptr));
}

// Waits for the device first, as CUDA does.
cudaError_t cudaFree(void* data) {
  const Guard guard(mutex());
  if (data == nullptr) {
    return cudaSuccess;
  }
  if (const cudaError_t error = refuse_unsafe_call(); error != cudaSuccess) {
    return set_last_error(error);
  }
  const auto found = find_allocation(data);
  finish_device(found ? found->device : current_device());
  return set_last_error(release_or_report(data, MemoryKind::device, "cudaFree"));
}

cudaError_t cudaMallocAsync(void** data, std::size_t bytes, cudaStream_t stream) {
  const Guard guard(mutex());
  return set_last_error(usable(stream, "cudaMallocAsync")
                            ? allocate(data, bytes, device_of(stream), stream)
                            : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  const Guard guard(mutex());
  if (data == nullptr) {
    return cudaSuccess;
  }
  if (is_capturing(stream)) {
    report_fault(FaultKind::misuse,
                 "cudaFreeAsync is captured for memory that was allocated outside of the graph");
    return set_last_error(refuse_in_capture(stream));
  }
  return set_last_error(enqueue(stream, "cudaFreeAsync", [=] {
    release_or_report(data, MemoryKind::device, "cudaFreeAsync");
    return true;
  }));
}

// ---- pools: names for the same memory, which is never kept for reuse ----

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  if (properties->location.type != cudaMemLocationTypeDevice) {
    return set_last_error(cudaErrorNotSupported);
  }
  *pool = new CUmemPoolHandle_st{.device = properties->location.id};
  return cudaSuccess;
}

// Handles are never given back, so that the use of a dead one can be told.
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  pool->destroyed = true;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  static std::vector<std::unique_ptr<CUmemPoolHandle_st>> pools;
  const Guard guard(mutex());
  while (static_cast<int>(pools.size()) <= device) {
    pools.push_back(std::make_unique<CUmemPoolHandle_st>(static_cast<int>(pools.size())));
  }
  *pool = pools[static_cast<std::size_t>(device)].get();
  return cudaSuccess;
}

// What pools keep back cannot be seen here.
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return cudaSuccess;
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, std::size_t) {
  return cudaSuccess;
}

cudaError_t cudaMallocFromPoolAsync(void** data, std::size_t bytes, cudaMemPool_t pool,
                                    cudaStream_t stream) {
  const Guard guard(mutex());
  if (!usable(stream, "cudaMallocFromPoolAsync")) {
    return set_last_error(cudaErrorInvalidResourceHandle);
  }
  if (pool->destroyed) {
    report_fault(FaultKind::misuse, "cudaMallocFromPoolAsync uses a pool that was destroyed");
    return set_last_error(cudaErrorInvalidValue);
  }
  return set_last_error(allocate(data, bytes, pool->device, stream));
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  const Guard guard(mutex());
  const MemoryUse use = memory_use(current_device());
  *total = use.total;
  *free = use.total - use.used;
  return cudaSuccess;
}

// ---- pinned memory ----

cudaError_t cudaHostAlloc(void** data, std::size_t bytes, unsigned) {
  const Guard guard(mutex());
  if (const cudaError_t error = refuse_unsafe_call(); error != cudaSuccess) {
    return set_last_error(error);
  }
  *data = bytes == 0 ? nullptr : allocate_pinned(bytes).begin;
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** data, std::size_t bytes) {
  return cudaHostAlloc(data, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void* data) {
  const Guard guard(mutex());
  if (data == nullptr) {
    return cudaSuccess;
  }
  if (const cudaError_t error = refuse_unsafe_call(); error != cudaSuccess) {
    return set_last_error(error);
  }
  finish_device(current_device());
  return set_last_error(release_or_report(data, MemoryKind::pinned, "cudaFreeHost"));
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
  const Guard guard(mutex());
  *attributes = {};
  attributes->device = -1;
  attributes->type = cudaMemoryTypeUnregistered;
  const auto found = find_allocation(address);
  if (found && found->stage != Allocation::Stage::freed) {
    const bool device = found->kind == MemoryKind::device;
    attributes->type = device ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
    attributes->device = found->device;
    attributes->devicePointer = const_cast<void*>(address);
    attributes->hostPointer = device ? nullptr : const_cast<void*>(address);
  }
  return cudaSuccess;
}

// ---- copies and fills ----

cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t stream) {
  const Guard guard(mutex());
  return set_last_error(bytes == 0 ? cudaSuccess : copy(target, source, bytes, kind, stream));
}

cudaError_t cudaMemcpy(void*, const void*, std::size_t, cudaMemcpyKind) {
  report_fault(FaultKind::default_stream, "cudaMemcpy uses the default stream");
  return set_last_error(cudaErrorInvalidResourceHandle);
}

cudaError_t cudaMemsetAsync(void* target, int value, std::size_t bytes, cudaStream_t stream) {
  const Guard guard(mutex());
  if (!on_device(target) && !pageable(target)) {
    report_fault(FaultKind::memory,
                 fmt::format("cudaMemsetAsync fills {}", describe_address(target)));
  }
  if (!inside_allocation({target, true}, bytes, "cudaMemsetAsync", false)) {
    return set_last_error(cudaErrorInvalidValue);
  }
  return set_last_error(enqueue(stream, fmt::format("a fill of {} bytes", bytes), [=] {
    if (inside_allocation({target, true}, bytes, "cudaMemsetAsync", true)) {
      count_traffic_of("cudaMemsetAsync");
      count_access(target, bytes, true);
      std::memset(target, value, bytes);
    }
    return true;
  }));
}

}  // extern "C"
