// SPDX-License-Identifier: Apache-2.0
#include "device/cpu/host_cache.hpp"

#include <bit>
#include <cstdlib>
#include <sys/mman.h>

namespace tessera {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLargest = std::size_t{1} << 62;  // rounding up stays inside 64 bits

// Sizes are rounded up to an eighth of their power of two, so that blocks of nearly equal size
// share a list.
std::size_t size_class(std::size_t bytes) {
  if (bytes <= 1024) return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const std::size_t step = std::bit_floor(bytes) / 8;
  return (bytes + step - 1) / step * step;
}

// A stagger between large blocks: arrays whose distance is a multiple of 4 KiB collide in the
// caches when a loop streams through several of them (measured: up to three times slower).
std::size_t next_stagger() {
  static std::size_t turn = 0;
  turn = (turn + 1) % 16;
  return turn * 5 * kAlignment;
}

struct Header {
  void* start;
};

}  // namespace

void* HostCache::allocate(std::size_t bytes) {
  if (bytes > kLargest) return nullptr;
  const std::size_t size = size_class(bytes);
  const std::lock_guard lock(mutex_);
  if (auto found = free_.find(size); found != free_.end() && !found->second.empty()) {
    void* block = found->second.back();
    found->second.pop_back();
    return block;
  }
  const bool large = size >= kHugePage;
  const std::size_t stagger = large ? next_stagger() : 0;
  const std::size_t alignment = large ? kHugePage : kAlignment;
  const std::size_t whole = (size + stagger + kAlignment + alignment - 1) / alignment * alignment;
  void* start = std::aligned_alloc(alignment, whole);
  if (start == nullptr) {  // what lies in the cache may be what is missing
    free_cached();
    start = std::aligned_alloc(alignment, whole);
    if (start == nullptr) return nullptr;
  }
  if (large) madvise(start, whole, MADV_HUGEPAGE);
  char* block = static_cast<char*>(start) + kAlignment + stagger;
  reinterpret_cast<Header*>(block - kAlignment)->start = start;
  return block;
}

void HostCache::release(void* block, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  free_[size_class(bytes)].push_back(block);
}

void HostCache::trim() {
  const std::lock_guard lock(mutex_);
  free_cached();
}

void HostCache::free_cached() {
  for (auto& [size, blocks] : free_)
    for (void* block : blocks)
      std::free(reinterpret_cast<Header*>(static_cast<char*>(block) - kAlignment)->start);
  free_.clear();
}

HostCache& host_cache() {
  static auto* cache = new HostCache;
  return *cache;
}

}  // namespace tessera
