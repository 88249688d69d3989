// SPDX-License-Identifier: Apache-2.0
// Refuses a run that cannot fit before anything is allocated.
#pragma once

#include "tessera/comm/runtime.hpp"
#include "tessera/config/run_config.hpp"
#include "tessera/nn/model.hpp"

namespace tessera::engine {

/// Errors: out_of_memory with the estimate by purpose and what would make it smaller, if the ranks
/// of a node together need more than the node (or its container) has free, or those that share a
/// GPU more than it has. Collective over runtime.world().
void check_memory(Runtime& runtime, const nn::Model& model, const config::RunConfig& config,
                  Device device = {});

}  // namespace tessera::engine
