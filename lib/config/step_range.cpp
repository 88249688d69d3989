// SPDX-License-Identifier: Apache-2.0
#include "config/step_range.hpp"

#include <regex>

namespace tessera::config {

std::optional<StepRange> parse_step_range(const Node& value) {
  if (value.is(Node::Kind::number))
    return value.integer < 1 ? std::nullopt
                             : std::optional(StepRange{value.integer, value.integer});
  // 15 digits are more than any run has, and fit.
  static const std::regex form("steps? ([0-9]{1,15})(?:-([0-9]{1,15}))?");
  std::smatch match;
  if (!std::regex_match(value.text, match, form)) return std::nullopt;
  StepRange range;
  range.first = std::stoll(match[1]);
  range.last = match[2].matched ? std::stoll(match[2]) : range.first;
  if (range.first < 1 || range.last < range.first) return std::nullopt;
  return range;
}

}  // namespace tessera::config
