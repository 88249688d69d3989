// SPDX-License-Identifier: Apache-2.0
// Work of a stream that is recorded once and launched again and again (a CUDA graph).
#pragma once

#include <memory>
#include <utility>

#include "tessera/device/stream.hpp"

namespace tessera {

/// A cheap handle of recorded work: kernels, copies and fills with the addresses and numbers that
/// they were recorded with. Whoever launches it keeps that memory.
class Graph {
 public:
  Graph() = default;
  explicit operator bool() const { return executable_ != nullptr; }
  /// Enqueues all of it in one call, after earlier work of the stream.
  void launch(const Stream& stream) const;

 private:
  friend class Capture;
  explicit Graph(std::shared_ptr<void> executable) : executable_(std::move(executable)) {}
  std::shared_ptr<void> executable_;
};

/// While it lives, work that is enqueued on `stream` is recorded and does not run. Meanwhile nobody
/// may wait for the stream, and this thread may neither allocate memory, but from an Arena, nor
/// copy from or to host memory that is not page-locked. Errors: not_supported on a CPU; cuda for
/// what cannot be recorded.
class Capture {
 public:
  explicit Capture(const Stream& stream);
  /// Drops what was recorded, unless finished.
  ~Capture();
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  /// Once.
  Graph finish();

 private:
  Stream stream_;
  bool active_ = false;
};

}  // namespace tessera
