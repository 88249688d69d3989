// SPDX-License-Identifier: Apache-2.0
// A configuration as text: for people, for programs, and as a run file that repeats the run.
#pragma once

#include <string>

#include "tessera/config/run_config.hpp"

namespace tessera::config {

/// Aligned lines `path  value  source`, then the notices.
std::string print_resolved(const RunConfig& config);
/// {"path": {"value": …, "source": "run.yaml:3"}, …} in the same order.
std::string to_json(const RunConfig& config);
/// A run file with every value; reading and resolving it on as many ranks gives an equal RunConfig.
/// mesh.data and gradient_accumulation_steps are written as `auto`, as they follow from the rest:
/// so it also fits other rank counts.
std::string to_yaml(const RunConfig& config);

/// doc/configuration.md: every known key with type, default, status and meaning, from the table
/// that the reader uses.
std::string configuration_markdown();

}  // namespace tessera::config
