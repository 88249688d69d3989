// SPDX-License-Identifier: Apache-2.0
// What is in a file, as JSON and as a table; both show the same data.
#pragma once

#include <string>

#include "apps/tessera/inspect/contents.hpp"

namespace tessera::app {

/// Facts, `tensors` by path, sums by `groups`, `total`. With `statistics` every tensor is read.
Json list_contents(const Contents& contents, bool statistics);

/// The listing for people.
std::string format_listing(const Json& listing);

}  // namespace tessera::app
