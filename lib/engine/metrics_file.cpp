// SPDX-License-Identifier: Apache-2.0
#include "engine/metrics_file.hpp"

#include <fstream>
#include <system_error>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"

namespace tessera::engine {

void MetricsFile::add(const std::string& line) {
  waiting_ += line + '\n';
  if (write_waiting()) {
    warned_ = false;
  } else if (!warned_) {
    warned_ = true;
    log_warning(fmt::format("cannot append to '{}': is the disk full? Its lines wait in memory",
                            path_.string()));
  }
}

void MetricsFile::close() {
  TESSERA_CHECK(write_waiting(), Code::io,
                fmt::format("cannot append the last {} bytes to '{}': is the disk full?",
                            waiting_.size(), path_.string()));
}

bool MetricsFile::write_waiting() {
  if (waiting_.empty()) return true;
  std::error_code error;
  const std::uintmax_t before =
      std::filesystem::exists(path_, error) ? std::filesystem::file_size(path_, error) : 0;
  std::ofstream file(path_, std::ios::app);
  file << waiting_;
  file.close();
  if (!file.fail()) {
    waiting_.clear();
    return true;
  }
  // A part of it may be there.
  if (std::filesystem::exists(path_, error)) std::filesystem::resize_file(path_, before, error);
  return false;
}

}  // namespace tessera::engine
