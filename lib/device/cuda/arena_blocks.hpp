// SPDX-License-Identifier: Apache-2.0
// The memory of an arena.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "tessera/device/arena.hpp"
#include "tessera/device/buffer.hpp"

namespace tessera {

class Arena::Blocks : public std::enable_shared_from_this<Arena::Blocks> {
 public:
  explicit Blocks(const Stream& stream) : stream_(stream) {}
  ~Blocks();
  Blocks(const Blocks&) = delete;
  Blocks& operator=(const Blocks&) = delete;

  const Stream& stream() const { return stream_; }
  Buffer allocate(std::size_t bytes, Purpose purpose);

  /// The innermost one of this thread whose buffers are born on `stream`, else nullptr.
  static std::shared_ptr<Blocks> current(const Stream& stream);

 private:
  using Kind = std::pair<Purpose, std::size_t>;

  void* take(const Kind& kind);
  void* grow(const Kind& kind);
  void give_back(void* block, std::size_t bytes, const Kind& kind);

  Stream stream_;
  std::mutex mutex_;  // buffers may die on other threads
  std::map<Kind, std::vector<void*>> free_;
};

}  // namespace tessera
