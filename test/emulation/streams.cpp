// SPDX-License-Identifier: Apache-2.0
// Queues of work, marks in them, and the choice of what runs next.
#include "emulation/streams.hpp"

#include <algorithm>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <deque>
#include <memory>
#include <thread>
#include <unordered_set>
#include <vector>

#include <fmt/format.h>

#include "emulation/device_state.hpp"
#include "emulation/emulation.hpp"
#include "emulation/graphs.hpp"
#include "emulation/memory.hpp"
#include "emulation/protection.hpp"
#include "emulation/race.hpp"
#include "emulation/stream_state.hpp"

namespace tessera::emulation {

// Never destroyed: buffers in statics may outlive it.
Registry& registry() {
  static auto* const the_registry = new Registry;
  return *the_registry;
}

Choices& choices() {
  Registry& the = registry();
  if (the.choices_seed != seed()) {
    the.choices = Choices(the.choices_seed = seed());
  }
  return the.choices;
}

namespace {

std::string name(const CUstream_st& stream) {
  return fmt::format("stream {} of device {}", stream.number, stream.device);
}

bool can_run(const CUstream_st& stream) {
  return !stream.queue.empty() &&
         (!stream.queue.front().can_start || stream.queue.front().can_start());
}

enum class Progress { none, waiting, moved };

const Work* running_work = nullptr;

bool take_step(const Work& work, StreamThread& thread) {
  const struct Running {
    explicit Running(const Work& one) { running_work = &one; }
    ~Running() { running_work = nullptr; }
  } running(work);
  const DeviceSide side(work.what);
  bool done = false;
  thread.run([&] {
    race::acquire(work.enqueued.get());
    done = work.step();
  });
  const std::string damage = find_damage();
  if (!damage.empty()) {
    report_fault(FaultKind::memory, work.what + " has written outside of allocations: " + damage);
  }
  return done;
}

Progress step_once() {
  std::vector<CUstream_st*> candidates;
  for (const auto& stream : registry().streams) {
    if (can_run(*stream)) {
      candidates.push_back(stream.get());
    }
  }
  if (candidates.empty()) {
    return Progress::none;
  }
  CUstream_st& stream = *candidates[choices().below(candidates.size())];
  // What runs may report a fault that a test's handler throws: it must not run a second time.
  Work work = std::move(stream.queue.front());
  stream.queue.pop_front();
  if (take_step(work, *stream.thread)) {
    return Progress::moved;
  }
  stream.queue.push_front(std::move(work));
  return Progress::waiting;
}

std::string describe_queues() {
  std::string text;
  for (const auto& stream : registry().streams) {
    if (!stream->queue.empty()) {
      text += fmt::format("; {} is before {}", name(*stream), stream->queue.front().what);
    }
  }
  return text.empty() ? "; all streams are empty" : text;
}

}  // namespace

bool usable_event(cudaEvent_t event, const char* call) {
  if (!registry().known_events.contains(event) || event->destroyed) {
    report_fault(FaultKind::misuse, fmt::format("{} uses an event that does not exist", call));
    return false;
  }
  return true;
}

std::recursive_mutex& mutex() {
  static std::recursive_mutex the_mutex;
  return the_mutex;
}

bool usable(cudaStream_t stream, const char* call) {
  if (stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread) {
    report_fault(FaultKind::default_stream, fmt::format("{} uses the default stream", call));
    return false;
  }
  if (!registry().known_streams.contains(stream) || stream->destroyed) {
    report_fault(FaultKind::misuse, fmt::format("{} uses a stream that does not exist", call));
    return false;
  }
  return true;
}

int device_of(cudaStream_t stream) {
  return stream->device;
}

std::int64_t enqueued() {
  const Guard guard(mutex());
  return registry().enqueued;
}

cudaError_t enqueue(cudaStream_t stream, std::string what, Step step) {
  return append(stream, {.what = std::move(what), .step = std::move(step)});
}

cudaError_t append(cudaStream_t stream, Work work) {
  if (!usable(stream, work.what.c_str())) {
    return cudaErrorInvalidResourceHandle;
  }
  if (stream->capture != nullptr) {
    return set_last_error(capture_work(*stream, std::move(work)));
  }
  ++registry().enqueued;
  work.enqueued = new_token();
  race::release(work.enqueued.get());
  stream->queue.push_back(std::move(work));
  return cudaSuccess;
}

void host_follows(const CUstream_st& stream) {
  if constexpr (race::kWatched) {
    const Token token = new_token();
    stream.thread->run([&] { race::release(token.get()); });
    race::acquire(token.get());
  }
}

bool progress() {
  const Guard guard(mutex());
  const ClosesMemory closes;
  return running_work == nullptr && step_once() != Progress::none;
}

cudaError_t run_until(const std::function<bool()>& reached, const std::string& what) {
  if (running_work != nullptr) {
    report_fault(FaultKind::misuse,
                 fmt::format("a wait for {} inside of {}", what, running_work->what));
    return cudaErrorNotPermitted;
  }
  const ClosesMemory closes;
  while (!reached()) {
    switch (step_once()) {
      case Progress::none:
        report_fault(FaultKind::stream_deadlock,
                     fmt::format("{} waits for ever{}", what, describe_queues()));
        return cudaErrorLaunchFailure;
      case Progress::waiting:
        // Other threads of the host may have to bring what the work waits for.
        mutex().unlock();
        std::this_thread::yield();
        mutex().lock();
        break;
      case Progress::moved:
        break;
    }
  }
  return cudaSuccess;
}

cudaError_t finish_stream(cudaStream_t stream) {
  const cudaError_t error = run_until([=] { return stream->queue.empty(); }, name(*stream));
  host_follows(*stream);
  return error;
}

cudaError_t finish_device(int device) {
  for (const auto& stream : registry().streams) {
    if (stream->device == device && stream->thread != nullptr) {
      if (const cudaError_t error = finish_stream(stream.get()); error != cudaSuccess) {
        return error;
      }
    }
  }
  return cudaSuccess;
}

}  // namespace tessera::emulation
