// SPDX-License-Identifier: Apache-2.0
// The folder of one run: resolved configuration, metrics, log, summary, checkpoints.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace tessera::engine {

/// Not collective: one rank (the world's first) owns the folder's text files; every rank may ask
/// for paths.
class RunFolder {
 public:
  explicit RunFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}

  const std::filesystem::path& path() const { return folder_; }
  std::filesystem::path checkpoints() const { return folder_ / "checkpoints"; }
  std::filesystem::path config() const { return folder_ / "config.yaml"; }
  std::filesystem::path metrics() const { return folder_ / "metrics.jsonl"; }
  std::filesystem::path events() const { return folder_ / "events.jsonl"; }
  std::filesystem::path summary() const { return folder_ / "summary.json"; }
  std::filesystem::path timeline() const { return folder_ / "timeline.json"; }
  std::filesystem::path log() const { return folder_ / "log.txt"; }
  std::filesystem::path requeue() const { return folder_ / "REQUEUE"; }

  /// True if a run has left its configuration or a checkpoint there.
  bool was_used() const;
  /// Makes the folder and its checkpoint folder. Errors: io naming the path and the reason.
  void create() const;
  /// Drops metric lines of steps after `step`, and a half-written last line, so that a resumed run
  /// continues the file without gaps or repeats.
  void truncate_metrics(std::int64_t step) const;
  /// Drops a half-written last line of events.jsonl; what happened before a resume stays.
  void mend_events() const;
  /// Appends one line and hands it to the system at once. Errors: io.
  void append_event(const std::string& line) const;
  void append_log(const std::string& line) const;
  void mark_requeue(const std::string& reason) const;
  void clear_requeue() const;

 private:
  std::filesystem::path folder_;
};

}  // namespace tessera::engine
