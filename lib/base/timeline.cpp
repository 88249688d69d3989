// SPDX-License-Identifier: Apache-2.0
// Keeps the spans of one thread.
#include "tessera/base/timeline.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

namespace tessera {
namespace {

constexpr std::int64_t kOpen = -1;  // the end of a span that is

// Used by the owner alone.
struct State {
  std::thread::id owner;
  Timeline::Recording recording;
};

State& state() {
  static State state;
  return state;
}

}  // namespace

const char* to_string(SpanKind kind) {
  switch (kind) {
    case SpanKind::step:
      return "step";
    case SpanKind::input:
      return "input";
    case SpanKind::forward:
      return "forward";
    case SpanKind::backward:
      return "backward";
    case SpanKind::backward_weight:
      return "backward_weight";
    case SpanKind::optimizer:
      return "optimizer";
    case SpanKind::validation:
      return "validation";
    case SpanKind::checkpoint:
      return "checkpoint";
    case SpanKind::communication:
      return "communication";
    case SpanKind::idle:
      return "idle";
    case SpanKind::in_flight:
      break;
  }
  return "in_flight";
}

std::int64_t Timeline::now() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
}

void Timeline::start() {
  state() = {std::this_thread::get_id(), {}};
  recording_ = true;
}

Timeline::Recording Timeline::stop() {
  recording_ = false;
  const std::int64_t end = now();
  Recording recording = std::exchange(state().recording, {});
  for (Span& span : recording.spans)
    if (span.end == kOpen) span.end = end;
  // Those of add() come after what began later.
  std::ranges::stable_sort(recording.spans, [](const Span& a, const Span& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
  });
  return recording;
}

std::int64_t Timeline::open(const char* name, SpanKind kind) {
  if (std::this_thread::get_id() != state().owner) return ScopedSpan::kNone;
  Recording& recording = state().recording;
  if (recording.spans.size() >= kMostSpans) {
    ++recording.dropped;
    return ScopedSpan::kNone;
  }
  recording.spans.push_back({name, kind, now(), kOpen, {}});
  return std::ssize(recording.spans) - 1;
}

SpanDetails& Timeline::details_of(std::int64_t span) {
  return state().recording.spans[static_cast<std::size_t>(span)].details;
}

void Timeline::close(std::int64_t span) {
  auto& spans = state().recording.spans;
  // Else the recording ended inside the span.
  if (recording() && span < std::ssize(spans)) spans[static_cast<std::size_t>(span)].end = now();
}

void Timeline::add(Span span) {
  if (!recording() || std::this_thread::get_id() != state().owner) return;
  Recording& recording = state().recording;
  if (recording.spans.size() < kMostSpans)
    recording.spans.push_back(std::move(span));
  else
    ++recording.dropped;
}

}  // namespace tessera
