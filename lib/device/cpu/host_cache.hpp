// SPDX-License-Identifier: Apache-2.0
// Free lists of host blocks by size.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <vector>

namespace tessera {

class HostCache {
 public:
  /// 64-byte aligned block of at least `bytes`, or nullptr when the system has none.
  void* allocate(std::size_t bytes);
  void release(void* block, std::size_t bytes);
  /// Frees every cached block.
  void trim();

 private:
  void free_cached();

  std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;
};

/// Never destroyed: buffers in other statics may outlive it.
HostCache& host_cache();

}  // namespace tessera
