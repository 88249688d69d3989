// SPDX-License-Identifier: Apache-2.0
// Streams as queues that move only when something waits for them, and events.
#pragma once

#include <driver_types.h>
#include <functional>
#include <mutex>
#include <string>

#include "emulation/race.hpp"

namespace tessera::emulation {

/// Every call of the emulated libraries holds it; it may be taken again by its owner.
std::recursive_mutex& mutex();
class Guard {
 public:
  explicit Guard(std::recursive_mutex& mutex) : lock_(mutex) {}

 private:
  std::lock_guard<std::recursive_mutex> lock_;
  race::Unwatched unwatched_;
};

/// One step of work at the head of a stream: true if the work is done, false to be called again
/// later (it must not block).
using Step = std::function<bool()>;

/// Appends work to a stream; it runs when something waits. Reports unusable streams.
cudaError_t enqueue(cudaStream_t stream, std::string what, Step step);

/// Lets one piece of work run that can run, chosen at random; false if there is none. Host code
/// that blocks on something else (a message from another process) calls it while it waits.
bool progress();

/// Runs streams until `reached`; reports a deadlock if nothing can run. The mutex is held once.
cudaError_t run_until(const std::function<bool()>& reached, const std::string& what);

bool usable(cudaStream_t stream, const char* call);
int device_of(cudaStream_t stream);
cudaError_t finish_stream(cudaStream_t stream);
cudaError_t finish_device(int device);

}  // namespace tessera::emulation
