// SPDX-License-Identifier: Apache-2.0
#include "tessera/base/number_format.hpp"

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera {
namespace {

template <typename T>
std::string shortest(T value) {
  if (!std::isfinite(value)) return "null";
  std::string text = fmt::format("{}", value);
  // A reader must see a floating number, not an integer.
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

}  // namespace

std::string json_number(double value) {
  return shortest(value);
}
std::string json_number(float value) {
  return shortest(value);
}

std::string format_bytes(double bytes) {
  static constexpr std::array units = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  std::size_t unit = 0;
  // Compared as printed, so that 1023.99 KiB becomes 1.0 MiB.
  while (std::abs(bytes) >= (unit == 0 ? 1023.5 : 1023.95) && unit + 1 < units.size()) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, units[unit]);
}

std::int64_t parse_bytes(std::string_view text) {
  const auto refuse = [text] {
    fail(Code::invalid_argument,
         fmt::format("'{}' is not a size: write bytes, or a number with KB, MB, GB, TB (powers of "
                     "1000), KiB, MiB, GiB or TiB (powers of 1024)",
                     text));
  };
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value, std::chars_format::fixed);
  if (error != std::errc() || !std::isfinite(value) || value < 0) refuse();
  std::string unit;
  for (const char* next = rest; next != end; ++next)
    if (!(unit.empty() && *next == ' '))
      unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*next)));
  if (unit.ends_with('b')) unit.pop_back();
  constexpr std::string_view prefixes = "kmgtp";
  if (!unit.empty()) {
    const std::size_t power = prefixes.find(unit[0]);
    const bool binary = unit.size() == 2 && unit[1] == 'i';
    if (power == std::string_view::npos || (unit.size() > 1 && !binary)) refuse();
    value *= std::pow(binary ? 1024.0 : 1000.0, static_cast<double>(power + 1));
  }
  constexpr double kTooMuch = 9.2e18;  // of 63 bits
  if (value >= kTooMuch) refuse();
  return static_cast<std::int64_t>(std::llround(value));
}

std::string format_count(double count) {
  static constexpr std::array units = {"", " k", " M", " G", " T", " P"};
  std::size_t unit = 0;
  while (std::abs(count) >= (unit == 0 ? 999.5 : 999.95) && unit + 1 < units.size()) {
    count /= 1000;
    ++unit;
  }
  return fmt::format("{:.{}f}{}", count, unit == 0 ? 0 : 1, units[unit]);
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds)) return "?";
  const auto total = static_cast<std::int64_t>(std::llround(seconds));
  const std::int64_t hours = total / 3600, minutes = total / 60 % 60, rest = total % 60;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, rest);
  return fmt::format("{}:{:02}", minutes, rest);
}

}  // namespace tessera
