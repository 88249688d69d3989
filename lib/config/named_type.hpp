// SPDX-License-Identifier: Apache-2.0
// The `type` and `params` of an optimizer or a schedule.
#pragma once

#include <string>
#include <vector>

#include "config/walk.hpp"

namespace tessera::config {

inline constexpr const char* kOptimizer = "engine.optimizer";
inline constexpr const char* kScheduler = "engine.scheduler";

/// The type, by its proper name, and all its parameters: given ones, and the defaults of those that
/// are supported. Takes what the file says from `given`.
std::vector<Given> read_named_type(const std::string& prefix, const std::vector<NamedType>& types,
                                   const std::vector<Given>& given, Problems& problems);

}  // namespace tessera::config
