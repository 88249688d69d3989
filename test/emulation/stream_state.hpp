// SPDX-License-Identifier: Apache-2.0
// What streams and events consist of.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <driver_types.h>
#include <functional>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "emulation/random.hpp"
#include "emulation/stream_thread.hpp"
#include "emulation/streams.hpp"

namespace tessera::emulation {

/// By its address ThreadSanitizer knows what was released before and is acquired after.
using Token = std::shared_ptr<std::uint64_t>;
inline Token new_token() {
  return std::make_shared<std::uint64_t>();
}

/// How often an event was recorded, and up to which record the streams have come.
struct Marks {
  std::uint64_t recorded = 0;
  std::uint64_t reached = 0;
  Token last_record;
  std::chrono::steady_clock::time_point reached_at;
};

struct Work {
  std::string what;
  Step step;
  std::function<bool()> can_start = {};  ///< empty: always
  Token enqueued = {};
};

struct Registry {
  std::vector<std::unique_ptr<CUstream_st>> streams;
  std::unordered_set<const CUstream_st*> known_streams;
  std::vector<std::unique_ptr<CUevent_st>> events;
  std::unordered_set<const CUevent_st*> known_events;
  Choices choices{0};
  std::uint64_t choices_seed = 0;
  std::int64_t enqueued = 0;
};
Registry& registry();
Choices& choices();

class Capturing;

bool usable_event(cudaEvent_t event, const char* call);
/// Puts work on the stream, or into the graph that the stream is capturing.
cudaError_t append(cudaStream_t stream, Work work);
/// The host has seen that the stream is empty.
void host_follows(const CUstream_st& stream);

}  // namespace tessera::emulation

// Handles live as long as the process, so that the use of a dead one can be told.
struct CUstream_st {
  int number = 0;
  int device = 0;
  unsigned flags = 0;
  int priority = 0;
  bool destroyed = false;
  std::deque<tessera::emulation::Work> queue;
  std::unique_ptr<tessera::emulation::StreamThread> thread =
      std::make_unique<tessera::emulation::StreamThread>();
  std::shared_ptr<tessera::emulation::Capturing> capture;  ///< nullptr: not capturing
  std::vector<std::size_t> captured_last;  ///< nodes that what is captured next follows
};

struct CUevent_st {
  unsigned flags = 0;
  bool destroyed = false;
  std::shared_ptr<tessera::emulation::Marks> marks = std::make_shared<tessera::emulation::Marks>();
  std::shared_ptr<tessera::emulation::Capturing> capture;  ///< of the last record; nullptr: none
  std::vector<std::size_t> captured_after;
};
