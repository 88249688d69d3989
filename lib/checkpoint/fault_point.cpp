// SPDX-License-Identifier: Apache-2.0
// Faults from the environment, so that tests reach into programs that they start.
#include "checkpoint/fault_point.hpp"

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <unistd.h>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

#include "base/transfer_limit.hpp"

namespace tessera::checkpoint {
namespace {

enum class Action { pause, fail, shorten };

struct Fault {
  std::string point;
  Action action = Action::fail;
  std::int64_t number = 0;  // milliseconds; which time, 0: every; bytes
};

std::string_view next_word(std::string_view& text) {
  const std::size_t end = text.find(':');
  const std::string_view word = text.substr(0, end);
  text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  return word;
}

bool is_point(std::string_view name) {
  for (const char* point : {"create", "write", "flush", "seal", "rename"})
    if (name == point) return true;
  return false;
}

std::optional<Fault> parse(std::string_view text) {
  Fault fault;
  fault.point = next_word(text);
  const std::string_view action = next_word(text);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), fault.number);
  const bool number =
      !text.empty() && error == std::errc() && end == text.data() + text.size() && fault.number > 0;
  if (action == "pause" && number)
    fault.action = Action::pause;
  else if (action == "short" && number)
    fault.action = Action::shorten;
  else if (action == "fail" && (number || text.empty()))
    fault.action = Action::fail;
  else
    return std::nullopt;
  return is_point(fault.point) ? std::optional(fault) : std::nullopt;
}

const std::optional<Fault>& asked_for() {
  static const std::optional<Fault> fault = [] {
    const char* text = std::getenv("TESSERA_FAULT");
    if (text == nullptr || *text == '\0') return std::optional<Fault>();
    const std::optional<Fault> parsed = parse(text);
    TESSERA_CHECK(parsed, Code::invalid_argument,
                  fmt::format("TESSERA_FAULT={} is not POINT:pause:MILLISECONDS, "
                              "POINT:fail[:NTH] or POINT:short:BYTES with POINT create, write, "
                              "flush, seal or rename",
                              text));
    return parsed;
  }();
  return fault;
}

void act(const Fault& fault) {
  static std::atomic<std::int64_t> times{0};
  switch (fault.action) {
    case Action::pause:
      // One write, so that lines of several ranks do not mix.
      std::fputs(
          fmt::format("TESSERA_FAULT: process {} waits at {}\n", ::getpid(), fault.point).c_str(),
          stderr);
      std::this_thread::sleep_for(std::chrono::milliseconds(fault.number));
      return;
    case Action::shorten:
      largest_transfer() = static_cast<std::size_t>(fault.number);
      return;
    case Action::fail:
      if (fault.number == 0 || ++times == fault.number)
        fail(Code::io, fmt::format("TESSERA_FAULT made the save fail at {}", fault.point));
  }
}

}  // namespace

std::function<void(const char*)>& fault_hook() {
  static std::function<void(const char*)> hook;
  return hook;
}

void fault_point(const char* point) {
  const std::optional<Fault>& fault = asked_for();
  if (fault && fault->point == point) act(*fault);
  if (fault_hook()) fault_hook()(point);
}

}  // namespace tessera::checkpoint
