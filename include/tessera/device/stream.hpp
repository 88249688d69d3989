// SPDX-License-Identifier: Apache-2.0
// An ordered queue of work on one device. On the CPU work runs at once on the calling thread, so
// every CPU stream is always idle; on a GPU calls return after enqueueing.
#pragma once

#include <cstddef>
#include <memory>

#include "tessera/device/device.hpp"

namespace tessera {

class Event;

/// A cheap handle; copies name the same queue. A default-constructed Stream is the CPU's.
class Stream {
 public:
  class Backend {
   public:
    virtual ~Backend() = default;
    virtual void copy(void* target, const void* source, std::size_t bytes) = 0;
    virtual void fill_zero(void* target, std::size_t bytes) = 0;
    virtual void synchronize() = 0;
    virtual void* native_handle() = 0;
    virtual std::shared_ptr<void> record() = 0;
    virtual void wait(void* event) = 0;
    virtual void wait_on_host(void* event) = 0;
    virtual bool reached(void* event) = 0;
  };

  Stream() = default;
  Stream(Device device, std::shared_ptr<Backend> backend)
      : device_(device), backend_(std::move(backend)) {}

  Device device() const { return device_; }
  /// Copies between any two places that the device can reach (device, pinned or pageable host),
  /// after earlier work.
  void copy(void* target, const void* source, std::size_t bytes) const;
  void fill_zero(void* target, std::size_t bytes) const;
  /// Blocks the host until everything enqueued so far is done.
  void synchronize() const;
  /// A mark after everything enqueued so far.
  Event record() const;
  /// Later work of this stream starts after `event`, without blocking the host.
  void wait(const Event& event) const;
  /// The backend's own stream (cudaStream_t), nullptr on the CPU.
  void* native_handle() const { return backend_ ? backend_->native_handle() : nullptr; }

 private:
  Device device_;
  std::shared_ptr<Backend> backend_;
};

class Event {
 public:
  Event() = default;
  /// Blocks the host until the mark is reached.
  void synchronize() const;
  /// Whether the mark is reached, without blocking.
  bool reached() const;

 private:
  friend class Stream;
  Event(std::shared_ptr<void> mark, std::shared_ptr<Stream::Backend> backend)
      : mark_(std::move(mark)), backend_(std::move(backend)) {}
  std::shared_ptr<void> mark_;
  std::shared_ptr<Stream::Backend> backend_;
};

}  // namespace tessera
