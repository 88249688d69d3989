// SPDX-License-Identifier: Apache-2.0
// Changes to a parsed file before it is checked: old names, --set, a bare DeepSpeed configuration.
#pragma once

#include <string>

#include "config/problems.hpp"
#include "config/table.hpp"

namespace tessera::config {

/// Gives every key its name in the table; a key that is given under two names is a problem.
void rename_aliases(Node& root, Problems& problems);

/// Applies `path=value`. Throws invalid_config for a malformed one, for an unknown path and for a
/// path through something that is no section.
void apply_override(Node& root, const std::string& argument);

/// True if the keys are those of a DeepSpeed configuration and not of a run file.
bool looks_like_engine(const Node& root);

}  // namespace tessera::config
