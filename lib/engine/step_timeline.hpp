// SPDX-License-Identifier: Apache-2.0
// run.timeline: what all ranks do in some steps, as one file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "tessera/base/timeline.hpp"
#include "tessera/comm/clock.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/config/run_config.hpp"
#include "tessera/engine/run_setup.hpp"

namespace tessera::engine {

/// Records from the first to the last step of the range that this process trains, and writes the
/// file after it. Changes nothing that is computed or counted.
class StepTimeline {
 public:
  /// `facts` go into the file as they are; `process` names this rank in it.
  StepTimeline(Communicator& world, std::optional<config::StepRange> steps,
               std::filesystem::path file, std::string process, nlohmann::ordered_json facts);
  StepTimeline(Runtime& runtime, const RunSetup& setup, std::filesystem::path file);
  ~StepTimeline();
  StepTimeline(const StepTimeline&) = delete;
  StepTimeline& operator=(const StepTimeline&) = delete;

  /// Collective when `step` is the first to be recorded.
  void before(std::int64_t step);
  /// `last`: the run stops now. A file that cannot be written is a warning: it is no reason to stop
  /// a run. Collective when it is time to write.
  void after(std::int64_t step, bool last);

 private:
  void write(std::int64_t last_step);

  Communicator& world_;
  std::optional<config::StepRange> steps_;
  std::filesystem::path file_;
  std::string process_;
  nlohmann::ordered_json facts_;
  ClockOffset clock_;
  std::int64_t first_step_ = 0;
  bool recording_ = false;
};

}  // namespace tessera::engine
