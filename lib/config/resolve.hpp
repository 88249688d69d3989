// SPDX-License-Identifier: Apache-2.0
// Which `auto` values wait for facts.
#pragma once

#include <string_view>

namespace tessera::config {

/// True for a path whose `auto` resolve() fills in; elsewhere `auto` means the default or stays.
bool is_open(std::string_view path);

}  // namespace tessera::config
