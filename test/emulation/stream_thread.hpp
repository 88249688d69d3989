// SPDX-License-Identifier: Apache-2.0
// The thread on which a stream's work runs: under ThreadSanitizer one of its own, so that streams
// are told apart and do not share the memory that stands for shared memory; else the caller.
#pragma once

#include <functional>
#include <memory>

#include "emulation/race.hpp"

namespace tessera::emulation {

class StreamThread {
 public:
  StreamThread();
  StreamThread(const StreamThread&) = delete;
  StreamThread& operator=(const StreamThread&) = delete;
  ~StreamThread();

  /// Returns when the task has; passes on what it throws. The hand-over orders nothing in the eyes
  /// of the sanitizer.
  void run(const std::function<void()>& task);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace tessera::emulation
