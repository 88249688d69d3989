// SPDX-License-Identifier: Apache-2.0
// Typed access to a schedule's parameters.
#include "optim/schedule_parameters.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tessera/base/error.hpp"

namespace tessera::optim {
namespace {

std::string describe(const ScheduleParameter& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return fmt::format("\"{}\"", *text);
  return std::visit(
      [](const auto& v) {
        if constexpr (std::is_same_v<std::decay_t<decltype(v)>, std::string>)
          return v;
        else
          return fmt::format("{}", v);
      },
      value);
}

}  // namespace

ScheduleReader::ScheduleReader(const ScheduleOptions& options, const std::string& type)
    : options_(options), type_(type) {
  const auto known = schedule_parameter_names(type);
  for (const auto& [name, value] : options.parameters)
    TESSERA_CHECK(std::find(known.begin(), known.end(), name) != known.end(), Code::invalid_config,
                  fmt::format("scheduler {} has no parameter {}; it has {}", type, name,
                              known.empty() ? "none" : fmt::format("{}", fmt::join(known, ", "))));
}

const ScheduleParameter* ScheduleReader::find(const char* name, bool required) const {
  const auto found = options_.parameters.find(name);
  if (found != options_.parameters.end()) return &found->second;
  TESSERA_CHECK(!required, Code::invalid_config,
                fmt::format("scheduler {} needs the parameter {}", type_, name));
  return nullptr;
}

void ScheduleReader::refuse(const std::string& name, const std::string& expected) const {
  fail(Code::invalid_config, fmt::format("scheduler {}: {} is {}, but has to be {}", type_, name,
                                         describe(options_.parameters.at(name)), expected));
}

double ScheduleReader::number(const char* name, std::optional<double> fallback) const {
  const auto* value = find(name, !fallback);
  if (value == nullptr) return *fallback;
  double result = NAN;
  if (const auto* real = std::get_if<double>(value)) result = *real;
  if (const auto* whole = std::get_if<std::int64_t>(value)) result = static_cast<double>(*whole);
  if (!std::isfinite(result) || result < 0) refuse(name, "a finite number of at least 0");
  return result;
}

std::int64_t ScheduleReader::count(const char* name, std::int64_t smallest,
                                   std::optional<std::int64_t> fallback) const {
  const auto* value = find(name, !fallback);
  if (value == nullptr) return *fallback;
  const auto expected = fmt::format("a whole number of at least {}", smallest);
  std::int64_t result = 0;
  if (const auto* whole = std::get_if<std::int64_t>(value)) {
    result = *whole;
  } else if (const auto* real = std::get_if<double>(value)) {
    const bool fits = std::abs(*real) < 9e15 && *real == std::floor(*real);
    if (!fits) refuse(name, expected);
    result = static_cast<std::int64_t>(*real);
  } else {
    refuse(name, expected);
  }
  if (result < smallest) refuse(name, expected);
  return result;
}

bool ScheduleReader::flag(const char* name, bool fallback) const {
  const auto* value = find(name, false);
  if (value == nullptr) return fallback;
  if (!std::holds_alternative<bool>(*value)) refuse(name, "true or false");
  return std::get<bool>(*value);
}

std::string ScheduleReader::text(const char* name, const std::string& fallback) const {
  const auto* value = find(name, false);
  if (value == nullptr) return fallback;
  if (!std::holds_alternative<std::string>(*value)) refuse(name, "a text");
  return std::get<std::string>(*value);
}

}  // namespace tessera::optim
