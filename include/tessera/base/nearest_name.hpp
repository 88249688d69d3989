// SPDX-License-Identifier: Apache-2.0
// The known name that a misspelt one probably means.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tessera {

/// The name in `known` with the smallest edit distance (insert, delete, replace, swap neighbours;
/// case ignored), the first of equals; "" if none is near enough to be a likely slip (more than a
/// third of the longer name differs).
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

/// "; did you mean 'n_layer'?", or "" when nothing is near: to append to an error message.
std::string did_you_mean(std::string_view name, const std::vector<std::string>& known);

}  // namespace tessera
