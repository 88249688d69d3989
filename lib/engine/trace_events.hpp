// SPDX-License-Identifier: Apache-2.0
// Spans in Chrome's Trace Event Format, which ui.perfetto.dev and chrome://tracing open.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "tessera/base/timeline.hpp"
#include "tessera/comm/clock.hpp"

namespace tessera::engine {

/// From a rank's clock to that of rank 0: between two measurements a line, so that clocks that run
/// at different speeds stay together.
class ClockMap {
 public:
  ClockMap(const ClockOffset& before, const ClockOffset& after) : before_(before), after_(after) {}
  std::int64_t operator()(std::int64_t time) const;
  /// Nanoseconds by which it is wrong at most, if clocks run evenly.
  std::int64_t error() const;

 private:
  ClockOffset before_, after_;
};

/// The thread of a rank on which a span is shown: computing, or communicating and waiting.
enum class Lane { compute, communication };
Lane lane_of(SpanKind kind);

/// The events of one rank, a line each with a comma after it: names of the process (the rank) and
/// its two threads, then a complete event a span, and a pair of asynchronous ones for what is in
/// flight. Microseconds since `origin`, a time of rank 0.
std::string trace_events(int rank, const std::string& process, std::span<const Span> spans,
                         const ClockMap& clock, std::int64_t origin);

}  // namespace tessera::engine
