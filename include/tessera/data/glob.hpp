// SPDX-License-Identifier: Apache-2.0
// File name patterns.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tessera::data {

bool has_wildcard(std::string_view pattern);
/// Regular files that match, sorted by the bytes of the path: `*` and `?` within a name, `[a-z]`,
/// `[!a-z]`, and `**` as a whole part for any number of folders. Hidden names match only a part
/// that begins with a dot. Links to files count; `**` does not enter links to folders. Folders that
/// cannot be read are skipped.
std::vector<std::string> expand_glob(const std::string& pattern);
/// One name against one part of a pattern.
bool matches(std::string_view pattern, std::string_view name);

}  // namespace tessera::data
