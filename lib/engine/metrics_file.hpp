// SPDX-License-Identifier: Apache-2.0
// metrics.jsonl while a run writes it.
#pragma once

#include <filesystem>
#include <string>

namespace tessera::engine {

/// Appends lines. What cannot be written (a full disk) waits in memory and goes with a later line,
/// so that the file has neither gaps nor half lines; a run does not die of it.
class MetricsFile {
 public:
  explicit MetricsFile(std::filesystem::path path) : path_(std::move(path)) {}
  /// Warns when lines begin to wait.
  void add(const std::string& line);
  /// Tries once more. Errors: io with the number of bytes that are lost.
  void close();

 private:
  bool write_waiting();

  std::filesystem::path path_;
  std::string waiting_;
  bool warned_ = false;
};

}  // namespace tessera::engine
