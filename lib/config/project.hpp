// SPDX-License-Identifier: Apache-2.0
// From entries to the plain structs.
#pragma once

#include "tessera/config/run_config.hpp"

namespace tessera::config {

/// Fills every section of `config` from its entries.
void project(RunConfig& config);

}  // namespace tessera::config
