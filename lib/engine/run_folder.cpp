// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/run_folder.hpp"

#include <fstream>
#include <sstream>
#include <system_error>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"
#include "tessera/checkpoint/folder.hpp"

namespace tessera::engine {
namespace {

void append_line(const std::filesystem::path& path, const std::string& line) {
  std::ofstream file(path, std::ios::app);
  file << line << '\n';
  file.flush();
  TESSERA_CHECK(file.good(), Code::io,
                fmt::format("cannot append to '{}': is the disk full?", path.string()));
}

}  // namespace

bool RunFolder::was_used() const {
  return std::filesystem::exists(config()) ||
         !checkpoint::Folder(checkpoints().string()).entries().empty();
}

void RunFolder::create() const {
  std::error_code error;
  std::filesystem::create_directories(checkpoints(), error);
  TESSERA_CHECK(!error, Code::io,
                fmt::format("cannot create the run's folder '{}': {}", checkpoints().string(),
                            error.message()));
}

void RunFolder::truncate_metrics(std::int64_t step) const {
  if (!std::filesystem::exists(metrics())) return;
  std::istringstream lines(read_text(metrics()));
  std::string kept;
  for (std::string line; std::getline(lines, line);) {
    const auto entry = nlohmann::json::parse(line, nullptr, false);
    if (entry.is_discarded() || !entry.contains("step")) continue;
    if (entry["step"].get<std::int64_t>() <= step) kept += line + '\n';
  }
  write_text(metrics(), kept);
}

void RunFolder::mend_events() const {
  if (!std::filesystem::exists(events())) return;
  const std::string text = read_text(events());
  const std::size_t lines_end = text.rfind('\n') + 1;  // 0 if there is no line
  if (lines_end < text.size()) write_text(events(), text.substr(0, lines_end));
}

void RunFolder::append_event(const std::string& line) const {
  append_line(events(), line);
}

void RunFolder::append_log(const std::string& line) const {
  append_line(log(), line);
}

void RunFolder::mark_requeue(const std::string& reason) const {
  write_text(requeue(), reason + '\n');
}

void RunFolder::clear_requeue() const {
  std::error_code ignored;
  std::filesystem::remove(requeue(), ignored);
}

}  // namespace tessera::engine
