// SPDX-License-Identifier: Apache-2.0
// Typed access to a schedule's parameters, with errors that name them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tessera/optim/schedule.hpp"

namespace tessera::optim {

/// Reads one schedule's parameters. Every error is invalid_config and names the schedule, the
/// parameter and its value.
class ScheduleReader {
 public:
  /// Refuses parameters that the type does not have.
  ScheduleReader(const ScheduleOptions& options, const std::string& type);

  /// A finite number of at least 0.
  double number(const char* name, std::optional<double> fallback) const;
  /// A whole number of at least `smallest`.
  std::int64_t count(const char* name, std::int64_t smallest,
                     std::optional<std::int64_t> fallback) const;
  bool flag(const char* name, bool fallback) const;
  std::string text(const char* name, const std::string& fallback) const;
  bool has(const char* name) const { return options_.parameters.contains(name); }
  [[noreturn]] void refuse(const std::string& name, const std::string& expected) const;

 private:
  const ScheduleParameter* find(const char* name, bool required) const;

  const ScheduleOptions& options_;
  std::string type_;
};

}  // namespace tessera::optim
