// SPDX-License-Identifier: Apache-2.0
// Environment variables that ranks on other hosts get.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera::app {

using Variable = std::pair<std::string, std::string>;
using Variables = std::vector<Variable>;

/// Lines `NAME=value`, `#` comments; quotes around a whole value are dropped. Errors:
/// invalid_argument naming the line.
Variables parse_variables(std::string_view text, const std::string& source);

/// Names of the variables of this process that begin with one of `prefixes`, sorted.
std::vector<std::string> names_with_prefixes(const std::vector<std::string>& prefixes);

/// Exported unless asked otherwise: where programs and libraries are found, and what tunes them.
const std::vector<std::string>& default_prefixes();

/// Files that are read unless others are named: .deepspeed_env, or what DS_ENV_FILE names, and
/// .tessera_env, of the home folder and then of this one, those that exist.
std::vector<std::string> default_variable_files();

}  // namespace tessera::app
