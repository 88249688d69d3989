// SPDX-License-Identifier: Apache-2.0
// What a run's folder tells of its course: metrics.jsonl and events.jsonl.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "apps/tessera/inspect/contents.hpp"
#include "apps/tessera/inspect/line_chart.hpp"

namespace tessera::app {

struct RunHistory {
  std::vector<Point> loss, validation_loss, learning_rate, gradient_norm, tokens_per_second;
  /// Lines of events.jsonl: start, resume, save, save_failed, damaged, stop.
  std::vector<Json> events;
  std::int64_t steps = 0;  // the last one
  double tokens = 0;       // of all steps
  double seconds = 0;
};

/// Lines that are not whole are left out; a missing events.jsonl is an empty list, a number that is
/// null is NaN. Errors: io when there is no metrics.jsonl.
RunHistory read_history(const std::filesystem::path& run);

/// "2026-11-21 05:28 UTC"
std::string format_time(double unix_seconds);

}  // namespace tessera::app
