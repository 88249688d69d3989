// SPDX-License-Identifier: Apache-2.0
// A run's timeline.json as a program needs it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "apps/tessera/inspect/contents.hpp"

namespace tessera::app {

/// Times are microseconds.
struct TimelineSpan {
  std::string kind;  // as the file calls it: forward, idle, …
  double begin = 0, end = 0;
  int micro_batch = -1, stage = -1, step = -1;
};

struct RankTimeline {
  /// Nested or apart, outer ones first: both lanes, as a rank has one thread of control.
  std::vector<TimelineSpan> spans;
};

struct Timeline {
  Json facts;  // otherData
  std::vector<RankTimeline> ranks;
};

/// Errors: io naming the file and what is wrong with it.
Timeline read_timeline(const std::filesystem::path& file);

/// Time by what a rank does, apart from each other: innermost spans count. Pieces of the same kind
/// and micro-batch that touch are one.
std::vector<TimelineSpan> innermost(const RankTimeline& rank, double begin, double end);

}  // namespace tessera::app
