// SPDX-License-Identifier: Apache-2.0
// The runtime's calls about streams and events.
#include <algorithm>
#include <chrono>
#include <cuda_runtime_api.h>
#include <memory>
#include <utility>

#include "emulation/device_state.hpp"
#include "emulation/emulation.hpp"
#include "emulation/graphs.hpp"
#include "emulation/protection.hpp"
#include "emulation/race.hpp"
#include "emulation/stream_state.hpp"
#include "emulation/sync_points.hpp"

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
  if (!usable(stream, "cudaStreamSynchronize")) {
    return cudaErrorInvalidResourceHandle;
  }
  if (const cudaError_t error = refuse_wait(*stream); error != cudaSuccess) {
    return set_last_error(error);
  }
  return program_waits_at("cudaStreamSynchronize") ? finish_stream(stream) : cudaSuccess;
}

// A program that only polls comes on, but slowly.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Guard guard(mutex());
  if (!usable(stream, "cudaStreamQuery")) {
    return cudaErrorInvalidResourceHandle;
  }
  if (const cudaError_t error = refuse_wait(*stream); error != cudaSuccess) {
    return set_last_error(error);
  }
  if (!stream->queue.empty() && choices().below(2) == 0) {
    progress();
  }
  if (!stream->queue.empty()) {
    return cudaErrorNotReady;
  }
  host_follows(*stream);
  return cudaSuccess;
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
  if (!program_waits_at("cudaStreamWaitEvent")) {
    return cudaSuccess;
  }
  if (stream->capture != nullptr || event->capture != nullptr) {
    return set_last_error(capture_wait(*stream, *event));
  }
  const std::shared_ptr<Marks> marks = event->marks;
  const auto pass = [token = marks->last_record] {
    race::acquire(token.get());
    return true;
  };
  const auto reached = [marks, version = marks->recorded] { return marks->reached >= version; };
  return append(stream, {.what = "a wait for an event", .step = pass, .can_start = reached});
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
  if (!usable(stream, "cudaEventRecord")) {
    return cudaErrorInvalidResourceHandle;
  }
  event->capture = stream->capture;
  if (stream->capture != nullptr) {
    event->captured_after = stream->captured_last;
    return cudaSuccess;
  }
  const std::uint64_t version = ++event->marks->recorded;
  event->marks->last_record = new_token();
  return enqueue(stream, "a record of an event",
                 [marks = event->marks, version, token = event->marks->last_record] {
                   marks->reached = std::max(marks->reached, version);
                   marks->reached_at = std::chrono::steady_clock::now();
                   race::release(token.get());
                   return true;
                 });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Guard guard(mutex());
  if (!usable_event(event, "cudaEventSynchronize")) {
    return cudaErrorInvalidResourceHandle;
  }
  if (const cudaError_t error = refuse_wait(*event); error != cudaSuccess) {
    return set_last_error(error);
  }
  if (!program_waits_at("cudaEventSynchronize")) {
    return cudaSuccess;
  }
  const Marks& marks = *event->marks;
  const cudaError_t error = run_until(
      [&, version = marks.recorded] { return marks.reached >= version; }, "cudaEventSynchronize");
  race::acquire(marks.last_record.get());
  return error;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Guard guard(mutex());
  if (!usable_event(event, "cudaEventQuery")) {
    return cudaErrorInvalidResourceHandle;
  }
  if (const cudaError_t error = refuse_wait(*event); error != cudaSuccess) {
    return set_last_error(error);
  }
  const Marks& marks = *event->marks;
  if (marks.reached < marks.recorded && choices().below(2) == 0) {
    progress();
  }
  if (marks.reached < marks.recorded) {
    return cudaErrorNotReady;
  }
  race::acquire(marks.last_record.get());
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  const Guard guard(mutex());
  if (!usable_event(start, "cudaEventElapsedTime") || !usable_event(end, "cudaEventElapsedTime") ||
      ((start->flags | end->flags) & cudaEventDisableTiming) != 0 || start->marks->recorded == 0 ||
      end->marks->recorded == 0) {
    return set_last_error(cudaErrorInvalidResourceHandle);
  }
  for (const Marks* marks : {start->marks.get(), end->marks.get()}) {
    if (marks->reached < marks->recorded) {
      return cudaErrorNotReady;
    }
  }
  *milliseconds =
      std::chrono::duration<float, std::milli>(end->marks->reached_at - start->marks->reached_at)
          .count();
  return cudaSuccess;
}

}  // extern "C"
