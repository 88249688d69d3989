// SPDX-License-Identifier: Apache-2.0
// "steps 3-5" as numbers.
#pragma once

#include <optional>

#include "tessera/config/run_config.hpp"

#include "config/node.hpp"

namespace tessera::config {

/// "steps 3-5", "step 3" or the number 3; nullopt for anything else: steps count from 1, the last
/// one is not before the first.
std::optional<StepRange> parse_step_range(const Node& value);

}  // namespace tessera::config
