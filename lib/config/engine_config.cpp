// SPDX-License-Identifier: Apache-2.0
#include "tessera/config/engine_config.hpp"

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::config {
namespace {

template <typename T>
const T& parameter(const SchedulerConfig& scheduler, const std::string& name) {
  const auto found = scheduler.params.find(name);
  TESSERA_CHECK(found != scheduler.params.end() && std::holds_alternative<T>(found->second),
                Code::internal,
                fmt::format("scheduler {} has no parameter {} of that type", scheduler.type, name));
  return std::get<T>(found->second);
}

}  // namespace

double SchedulerConfig::number(const std::string& name) const {
  return parameter<double>(*this, name);
}
bool SchedulerConfig::flag(const std::string& name) const {
  return parameter<bool>(*this, name);
}
const std::string& SchedulerConfig::text(const std::string& name) const {
  return parameter<std::string>(*this, name);
}

}  // namespace tessera::config
