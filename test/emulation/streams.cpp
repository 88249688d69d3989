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
#include "emulation/memory.hpp"
#include "emulation/protection.hpp"
#include "emulation/random.hpp"

using tessera::emulation::FaultKind;
using tessera::emulation::Guard;
using tessera::emulation::mutex;
using tessera::emulation::report_fault;
using tessera::emulation::Step;

namespace {

// How often an event was recorded, and up to which record the streams have come.
struct Marks {
  std::uint64_t recorded = 0;
  std::uint64_t reached = 0;
};

struct Work {
  std::string what;
  Step step;
  std::function<bool()> can_start;  // empty: always
};

}  // namespace

// Handles live as long as the process, so that the use of a dead one can be told.
struct CUstream_st {
  int number = 0;
  int device = 0;
  unsigned flags = 0;
  int priority = 0;
  bool destroyed = false;
  std::deque<Work> queue;
};

struct CUevent_st {
  unsigned flags = 0;
  bool destroyed = false;
  std::shared_ptr<Marks> marks = std::make_shared<Marks>();
};

namespace tessera::emulation {

namespace {

struct Registry {
  std::vector<std::unique_ptr<CUstream_st>> streams;
  std::unordered_set<const CUstream_st*> known_streams;
  std::vector<std::unique_ptr<CUevent_st>> events;
  std::unordered_set<const CUevent_st*> known_events;
  Choices choices{0};
  std::uint64_t choices_seed = 0;
};

Registry& registry() {
  static Registry the_registry;
  return the_registry;
}

Choices& choices() {
  Registry& the = registry();
  if (the.choices_seed != seed()) {
    the.choices = Choices(the.choices_seed = seed());
  }
  return the.choices;
}

std::string name(const CUstream_st& stream) {
  return fmt::format("stream {} of device {}", stream.number, stream.device);
}

bool can_run(const CUstream_st& stream) {
  return !stream.queue.empty() &&
         (!stream.queue.front().can_start || stream.queue.front().can_start());
}

enum class Progress { none, waiting, moved };

const Work* running_work = nullptr;

bool take_step(const Work& work) {
  const struct Running {
    explicit Running(const Work& one) { running_work = &one; }
    ~Running() { running_work = nullptr; }
  } running(work);
  const DeviceSide side(work.what);
  const bool done = work.step();
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
  if (take_step(work)) {
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

bool usable_event(cudaEvent_t event, const char* call) {
  if (!registry().known_events.contains(event) || event->destroyed) {
    report_fault(FaultKind::misuse, fmt::format("{} uses an event that does not exist", call));
    return false;
  }
  return true;
}

}  // namespace

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

cudaError_t enqueue(cudaStream_t stream, std::string what, Step step) {
  if (!usable(stream, what.c_str())) {
    return cudaErrorInvalidResourceHandle;
  }
  stream->queue.push_back({.what = std::move(what), .step = std::move(step), .can_start = {}});
  return cudaSuccess;
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
  return run_until([=] { return stream->queue.empty(); }, name(*stream));
}

cudaError_t finish_device(int device) {
  return run_until(
      [=] {
        return std::all_of(registry().streams.begin(), registry().streams.end(),
                           [=](const auto& s) { return s->device != device || s->queue.empty(); });
      },
      fmt::format("device {}", device));
}

}  // namespace tessera::emulation

using namespace tessera::emulation;  // NOLINT: the rest of the file is the runtime's C interface

extern "C" {

// ---- streams ----

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  const Guard guard(mutex());
  auto created = std::make_unique<CUstream_st>();
  Registry& the = registry();
  created->number = static_cast<int>(the.streams.size());
  created->device = current_device();
  created->flags = flags;
  created->priority = priority;
  the.known_streams.insert(*stream = created.get());
  the.streams.push_back(std::move(created));
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0);
}

// Returns at once; what is on the stream still runs.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Guard guard(mutex());
  if (!usable(stream, "cudaStreamDestroy")) {
    return cudaErrorInvalidResourceHandle;
  }
  stream->destroyed = true;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Guard guard(mutex());
  return usable(stream, "cudaStreamSynchronize") ? finish_stream(stream)
                                                 : cudaErrorInvalidResourceHandle;
}

// A program that only polls comes on, but slowly.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Guard guard(mutex());
  if (!usable(stream, "cudaStreamQuery")) {
    return cudaErrorInvalidResourceHandle;
  }
  if (!stream->queue.empty() && choices().below(2) == 0) {
    progress();
  }
  return stream->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
  const Guard guard(mutex());
  if (!usable(stream, "cudaStreamGetFlags")) {
    return cudaErrorInvalidResourceHandle;
  }
  *flags = stream->flags;
  return cudaSuccess;
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  const Guard guard(mutex());
  if (!usable(stream, "cudaStreamGetPriority")) {
    return cudaErrorInvalidResourceHandle;
  }
  *priority = stream->priority;
  return cudaSuccess;
}

cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  const Guard guard(mutex());
  if (!usable(stream, "cudaStreamGetDevice")) {
    return cudaErrorInvalidResourceHandle;
  }
  *device = stream->device;
  return cudaSuccess;
}

// The wait is for the last record before this call; an event that was never recorded is reached.
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Guard guard(mutex());
  if (!usable(stream, "cudaStreamWaitEvent") || !usable_event(event, "cudaStreamWaitEvent")) {
    return cudaErrorInvalidResourceHandle;
  }
  stream->queue.push_back(
      {.what = "a wait for an event",
       .step = [] { return true; },
       .can_start = [marks = event->marks,
                     version = event->marks->recorded] { return marks->reached >= version; }});
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  const Guard guard(mutex());
  return enqueue(stream, "cudaLaunchHostFunc", [=] {
    const HostSide host;
    function(data);
    return true;
  });
}

// ---- events ----

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  const Guard guard(mutex());
  auto created = std::make_unique<CUevent_st>();
  created->flags = flags;
  registry().known_events.insert(*event = created.get());
  registry().events.push_back(std::move(created));
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Guard guard(mutex());
  if (!usable_event(event, "cudaEventDestroy")) {
    return cudaErrorInvalidResourceHandle;
  }
  event->destroyed = true;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Guard guard(mutex());
  if (!usable_event(event, "cudaEventRecord")) {
    return cudaErrorInvalidResourceHandle;
  }
  const std::uint64_t version = ++event->marks->recorded;
  return enqueue(stream, "a record of an event", [marks = event->marks, version] {
    marks->reached = std::max(marks->reached, version);
    return true;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Guard guard(mutex());
  if (!usable_event(event, "cudaEventSynchronize")) {
    return cudaErrorInvalidResourceHandle;
  }
  return run_until([marks = event->marks,
                    version = event->marks->recorded] { return marks->reached >= version; },
                   "cudaEventSynchronize");
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Guard guard(mutex());
  if (!usable_event(event, "cudaEventQuery")) {
    return cudaErrorInvalidResourceHandle;
  }
  const Marks& marks = *event->marks;
  if (marks.reached < marks.recorded && choices().below(2) == 0) {
    progress();
  }
  return marks.reached >= marks.recorded ? cudaSuccess : cudaErrorNotReady;
}

}  // extern "C"
