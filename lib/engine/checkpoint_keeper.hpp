// SPDX-License-Identifier: Apache-2.0
// The checkpoints of a run: which one to continue from, when one is saved, which ones stay, and
// what is said about it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tessera/checkpoint/folder.hpp"
#include "tessera/checkpoint/reader.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/config/run_config.hpp"
#include "tessera/engine/engine.hpp"

#include "engine/event_log.hpp"

namespace tessera::engine {

/// Collective: every call, over runtime.world().
class CheckpointKeeper {
 public:
  CheckpointKeeper(Runtime& runtime, const std::string& folder,
                   const config::CheckpointConfig& config, const EventLog& events);
  ~CheckpointKeeper();
  CheckpointKeeper(const CheckpointKeeper&) = delete;
  CheckpointKeeper& operator=(const CheckpointKeeper&) = delete;

  const std::string& path() const { return folder_.path(); }
  /// Removes what an interrupted save left.
  void tidy();
  /// What `resume` (TrainRequest) means: an open checkpoint that is whole, or nothing. With "auto",
  /// damaged ones are warned about and passed over. Errors: io if there are only damaged ones, or
  /// the one that was asked for is.
  std::optional<checkpoint::Reader> find(const std::string& resume);
  /// The engine continues from there, or begins. If `resume` names a checkpoint, later ones are
  /// moved aside: they belong to a past that did not happen.
  void begin(const Engine& engine, const std::optional<checkpoint::Reader>& from,
             const std::string& resume);
  /// Saves the present step unless that is done; in the background if the run says so, but for the
  /// `last` save of a run. A failure is a warning; Errors: not_saved if it was the last save, or
  /// the run says so.
  void save(Engine& engine, const std::string& config_text, bool last);
  /// Records a background save that ended in a step. Errors: not_saved, as above.
  void note_saved(const SaveOutcome& outcome, bool last = false);

 private:
  void clean_up(const SaveOutcome& outcome);
  bool root() const { return runtime_.rank() == 0; }
  void report(const SaveOutcome& outcome);
  void fail_or_go_on(std::int64_t step, const std::string& error, bool last);

  Runtime& runtime_;
  checkpoint::Folder folder_;
  config::CheckpointConfig config_;
  EventLog events_;
  std::vector<std::string> damaged_;  // known to be, and not replaced since
  std::int64_t saved_step_ = -1;      // the newest that is whole or being written
  std::thread cleaner_;
};

}  // namespace tessera::engine
