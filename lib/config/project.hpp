// SPDX-License-Identifier: Apache-2.0
// From entries to the plain structs.
#pragma once

#include "tessera/config/run_config.hpp"

#include "config/values.hpp"

namespace tessera::config {

/// Of parameters and activations. `bf16.enabled` must be resolved, or it counts as false.
DType run_dtype(Values& values);
/// Fills every section of `config` from its entries.
void project(RunConfig& config);

}  // namespace tessera::config
