// SPDX-License-Identifier: Apache-2.0
// Owned raw memory on a device.
#pragma once

#include <cstddef>
#include <functional>
#include <utility>

#include "tessera/device/device.hpp"
#include "tessera/device/memory.hpp"

namespace tessera {

/// Move-only owner of `bytes` bytes, counted in the device's ledger under `purpose` while it lives.
/// Shared code never dereferences data(): a kernel or a copy of the device does.
class Buffer {
 public:
  using Release = std::function<void(void* data, std::size_t bytes)>;

  Buffer() = default;
  /// Takes over memory from an allocator; `release` gives it back. Counts it.
  Buffer(void* data, std::size_t bytes, Device device, Purpose purpose, Release release);
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  void* data() const { return data_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  std::size_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  Purpose purpose() const { return purpose_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(device_, other.device_);
    std::swap(purpose_, other.purpose_);
    std::swap(release_, other.release_);
  }

  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Device device_;
  Purpose purpose_ = Purpose::workspace;
  Release release_;
};

/// Uninitialised memory, aligned to 64 bytes. Host blocks are cached for reuse, because returning
/// large blocks to the system after every step costs a page fault per page. Zero bytes give an
/// empty buffer. Device memory is born on the device's current stream (device/cuda.hpp says what
/// that means). Errors: out_of_memory with the ledger's table, not_supported without the device.
Buffer allocate(std::size_t bytes, Device device, Purpose purpose);

/// Returns cached free blocks of the device to the system.
void release_cached_memory(Device device);

}  // namespace tessera
