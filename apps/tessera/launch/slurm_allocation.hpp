// SPDX-License-Identifier: Apache-2.0
// The hosts that Slurm gave to this job, as its environment tells them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/tessera/launch/hosts.hpp"

namespace tessera::app {

/// "gpu[01-03,7],login" is gpu01 gpu02 gpu03 gpu7 login. Errors: invalid_argument.
std::vector<std::string> expand_node_list(const std::string& text);
/// "2(x3),1" is 2 2 2 1. Errors: invalid_argument.
std::vector<int> expand_counts(const std::string& text);

/// Nothing outside of an allocation. Slots are Slurm's tasks on each node.
std::optional<Hosts> slurm_allocation();

}  // namespace tessera::app
