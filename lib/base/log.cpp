// SPDX-License-Identifier: Apache-2.0
#include "tessera/base/log.hpp"

#include <cstdio>
#include <mutex>
#include <set>

#include <fmt/format.h>

namespace tessera {
namespace {

struct LogState {
  std::recursive_mutex mutex;
  int rank = 0;
  int size = 1;
  LogLevel level = LogLevel::info;
  bool printing = true;
  std::function<void(LogLevel, const std::string&)> sink;
  std::set<std::string> said;
};

// Never destroyed: destructors of other statics may still log.
LogState& state() {
  static auto* instance = new LogState;
  return *instance;
}

// Not fmt::print: it throws when the stream is closed, and destructors log.
void print(std::FILE* stream, const std::string& line) {
  std::fputs((line + '\n').c_str(), stream);
  std::fflush(stream);
}

void write(LogLevel level, const std::string& message) {
  LogState& log = state();
  // Recursive: a sink that cannot write may say so.
  const std::lock_guard lock(log.mutex);
  if (level < log.level) return;
  const bool loud = level >= LogLevel::warning;
  if (!loud && log.rank != 0) return;
  std::string line = message;
  if (loud) line = (level == LogLevel::error ? "error: " : "warning: ") + line;
  if (loud && log.size > 1) line = fmt::format("[rank {}] {}", log.rank, line);
  if (log.printing) print(loud ? stderr : stdout, line);
  if (log.sink) log.sink(level, line);
}

}  // namespace

void set_log_rank(int rank, int size) {
  const std::lock_guard lock(state().mutex);
  state().rank = rank;
  state().size = size;
}

void set_log_level(LogLevel level) {
  const std::lock_guard lock(state().mutex);
  state().level = level;
}

void set_log_printing(bool on) {
  const std::lock_guard lock(state().mutex);
  state().printing = on;
}

void set_log_sink(std::function<void(LogLevel, const std::string&)> sink) {
  const std::lock_guard lock(state().mutex);
  state().sink = std::move(sink);
}

void log_debug(const std::string& message) {
  write(LogLevel::debug, message);
}
void log_info(const std::string& message) {
  write(LogLevel::info, message);
}
void log_warning(const std::string& message) {
  write(LogLevel::warning, message);
}
void log_error(const std::string& message) {
  write(LogLevel::error, message);
}

void log_warning_once(const std::string& message) {
  {
    const std::lock_guard lock(state().mutex);
    if (!state().said.insert(message).second) return;
  }
  log_warning(message);
}

}  // namespace tessera
