// SPDX-License-Identifier: Apache-2.0
// Wall-clock time by kind of operation; off unless switched on.
#pragma once

#include <map>
#include <string>

#include "tessera/base/timer.hpp"

namespace tessera::autograd {

/// Process-wide totals; for one thread.
class Profiler {
 public:
  static void enable(bool on);
  static bool enabled();
  /// Seconds by name since the last clear.
  static const std::map<std::string, double>& seconds();
  static void clear();
};

/// Adds its own lifetime to `name` when the profiler is on.
class ProfileScope {
 public:
  explicit ProfileScope(const char* name) : name_(Profiler::enabled() ? name : nullptr) {}
  ~ProfileScope();
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  const char* name_;
  Timer timer_;
};

}  // namespace tessera::autograd
