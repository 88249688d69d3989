// SPDX-License-Identifier: Apache-2.0
// Compares a parsed file with the table of keys.
#pragma once

#include <string>
#include <vector>

#include "config/problems.hpp"
#include "config/table.hpp"

namespace tessera::config {

/// A key that the file gives, of the right type.
struct Given {
  std::string path;  ///< with the names that stand for `*`
  const Row* row;
  Node value;
};

/// All keys below `root`, which must have no aliases left (overrides.hpp). Nulls count as not
/// given. What is unknown, of a wrong type or not available goes to `problems`.
std::vector<Given> walk(const Node& root, Problems& problems);

/// Checks one value; false if it was refused.
bool check_value(const std::string& path, const Row& row, const Node& value, Problems& problems);

/// What to say after an unknown name: the nearest of those known here, or all of them.
std::string advice(const std::string& name, const std::vector<std::string>& known);
/// The same for a key of a section; also says where else the key is known.
std::string advice(const std::string& key, const Branch& section);

}  // namespace tessera::config
