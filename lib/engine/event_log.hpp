// SPDX-License-Identifier: Apache-2.0
// events.jsonl: starts, saves and stops of a run, one JSON object a line.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "tessera/engine/run_folder.hpp"

namespace tessera::engine {

/// What happened to a run, as opposed to what it computed (metrics.jsonl). Local: only the first
/// rank's is active.
class EventLog {
 public:
  EventLog(RunFolder folder, bool active) : folder_(std::move(folder)), active_(active) {}

  /// Adds a line with `event`, `step`, `time` (Unix seconds) and the fields. A line that cannot be
  /// written is a warning: it is no reason to stop a run.
  void add(const std::string& event, std::int64_t step, const nlohmann::ordered_json& fields) const;

 private:
  RunFolder folder_;
  bool active_;
};

/// What the saves of a run cost, over all its starts; the `checkpoints` object of summary.json.
nlohmann::ordered_json count_saves(const RunFolder& folder);

}  // namespace tessera::engine
