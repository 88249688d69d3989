// SPDX-License-Identifier: Apache-2.0
// Rules that tie several values together.
#pragma once

#include "tessera/config/run_config.hpp"

#include "config/problems.hpp"

namespace tessera::config {

/// What can be said before the rank count is known: required keys, alternatives, lists' content.
/// Also gives run.folder its default.
void check_consistency(RunConfig& config, Problems& problems);

}  // namespace tessera::config
