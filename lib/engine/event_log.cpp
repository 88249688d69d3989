// SPDX-License-Identifier: Apache-2.0
#include "engine/event_log.hpp"

#include <chrono>
#include <filesystem>
#include <sstream>

#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"
#include "tessera/base/log.hpp"

namespace tessera::engine {
namespace {

using Json = nlohmann::ordered_json;

double unix_seconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

}  // namespace

void EventLog::add(const std::string& event, std::int64_t step, const Json& fields) const {
  if (!active_) return;
  Json line;
  line["event"] = event;
  line["step"] = step;
  line["time"] = unix_seconds();
  line.update(fields);
  try {
    folder_.append_event(line.dump(-1, ' ', false, Json::error_handler_t::replace));
  } catch (const Error& error) {
    log_warning(error.what());
  }
}

Json count_saves(const RunFolder& folder) {
  std::int64_t saves = 0, failed = 0, bytes = 0;
  double seconds = 0, blocked = 0;
  std::istringstream lines(std::filesystem::exists(folder.events()) ? read_text(folder.events())
                                                                    : "");
  for (std::string text; std::getline(lines, text);) {
    const Json line = Json::parse(text, nullptr, false);
    if (!line.is_object()) continue;
    const std::string event = line.value("event", "");
    if (event == "save_failed") ++failed;
    if (event != "save") continue;
    ++saves;
    bytes += line.value("bytes", std::int64_t{0});
    seconds += line.value("seconds", 0.0);
    blocked += line.value("seconds_blocked", 0.0);
  }
  Json counts;
  counts["saves"] = saves;
  counts["failed"] = failed;
  counts["bytes"] = bytes;
  counts["seconds"] = seconds;
  counts["seconds_blocked"] = blocked;
  counts["bytes_per_second"] = seconds > 0 ? static_cast<double>(bytes) / seconds : 0.0;
  return counts;
}

}  // namespace tessera::engine
