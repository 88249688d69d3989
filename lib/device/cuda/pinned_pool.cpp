// SPDX-License-Identifier: Apache-2.0
// Page-locked host memory, cached: locking pages costs about a millisecond for each.
#include <algorithm>
#include <bit>
#include <cuda_runtime_api.h>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/device/cuda.hpp"

#include "device/cuda/check.hpp"

namespace tessera {

namespace {

class PinnedPool {
 public:
  void* allocate(std::size_t bytes) {
    const std::size_t size = size_class(bytes);
    const std::lock_guard lock(mutex_);
    take_back();
    std::vector<void*>& blocks = free_[size];
    if (!blocks.empty()) {
      void* block = blocks.back();
      blocks.pop_back();
      return block;
    }
    void* block = nullptr;
    if (cudaHostAlloc(&block, size, cudaHostAllocPortable) == cudaSuccess) return block;
    cudaGetLastError();
    free_cached();
    if (cudaHostAlloc(&block, size, cudaHostAllocPortable) == cudaSuccess) return block;
    cudaGetLastError();
    return nullptr;
  }

  void release(void* block, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    free_[size_class(bytes)].push_back(block);
  }

  /// After the work that its stream has before `last`.
  void release_after(Event last, void* block, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    in_use_.push_back({std::move(last), block, bytes});
  }

 private:
  struct InUse {
    Event last;
    void* block;
    std::size_t bytes;
  };

  void take_back() {
    std::erase_if(in_use_, [&](const InUse& one) {
      if (!one.last.reached()) return false;
      free_[size_class(one.bytes)].push_back(one.block);
      return true;
    });
  }

  static std::size_t size_class(std::size_t bytes) {
    return std::bit_ceil(std::max<std::size_t>(bytes, 4096));
  }

  void free_cached() {
    for (auto& [size, blocks] : free_) {
      for (void* block : blocks) cuda::warn_cuda(cudaFreeHost(block), "freeing page-locked memory");
      blocks.clear();
    }
  }

  std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;
  std::vector<InUse> in_use_;
};

// Never destroyed: buffers in other statics may outlive it.
PinnedPool& pinned_pool() {
  static auto* pool = new PinnedPool;
  return *pool;
}

void* lock_pages(std::size_t bytes, Purpose purpose) {
  void* data = pinned_pool().allocate(bytes);
  TESSERA_CHECK(data != nullptr, Code::out_of_memory,
                fmt::format("could not lock {} of host memory for {} (is there a limit on it, "
                            "ulimit -l?). Host memory in use by this rank:\n{}",
                            format_bytes(static_cast<double>(bytes)), to_string(purpose),
                            memory_ledger(Device{}).to_string()));
  return data;
}

}  // namespace

Buffer allocate_pinned(std::size_t bytes, Purpose purpose) {
  if (bytes == 0) return {};
  if (cuda_device_count() == 0) return allocate(bytes, Device{}, purpose);
  return Buffer(lock_pages(bytes, purpose), bytes, Device{}, purpose,
                [](void* block, std::size_t size) { pinned_pool().release(block, size); });
}

Buffer allocate_pinned(std::size_t bytes, Purpose purpose, const Stream& stream) {
  if (bytes == 0 || stream.device().is_cpu()) return allocate_pinned(bytes, purpose);
  const auto release = [stream](void* block, std::size_t size) {
    try {
      pinned_pool().release_after(stream.record(), block, size);
    } catch (const Error& error) {  // a broken device: nobody may ever have the block
      log_warning(fmt::format("page-locked memory is lost: {}", error.what()));
    }
  };
  return Buffer(lock_pages(bytes, purpose), bytes, Device{}, purpose, release);
}

}  // namespace tessera
