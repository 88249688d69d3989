// SPDX-License-Identifier: Apache-2.0
// Taking short texts apart, and putting words together as a shell reads them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::app {

/// Without white space around it.
std::string trim(std::string_view text);
/// Between separators; "a,,b" has three parts, "" has one.
std::vector<std::string> split(std::string_view text, char separator);
/// By white space; never an empty word.
std::vector<std::string> split_words(std::string_view text);
/// Decimal digits and nothing else, up to the largest int.
std::optional<int> to_number(std::string_view text);

/// As a POSIX shell splits a line into words: quotes and backslashes, nothing expanded. Errors:
/// invalid_argument for a quote that does not end.
std::vector<std::string> split_command(std::string_view text);
/// `word` as a POSIX shell would have it written.
std::string quote(const std::string& word);

}  // namespace tessera::app
