// SPDX-License-Identifier: Apache-2.0
// Text to Nodes, refusing repeated keys, with lines.
#pragma once

#include <string>
#include <string_view>

#include "config/node.hpp"

namespace tessera::config {

/// YAML, or strict JSON when `name` ends in ".json". Throws invalid_config with file and line.
Node parse(const std::string& text, const std::string& name);
Node parse_yaml(const std::string& text, const std::string& name);
Node parse_json(const std::string& text, const std::string& name);
/// The value of a --set: YAML, where nothing means null.
Node parse_override(const std::string& text, const std::string& argument);

bool is_json_name(std::string_view name);

}  // namespace tessera::config
