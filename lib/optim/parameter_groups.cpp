// SPDX-License-Identifier: Apache-2.0
// Which parameters decay.
#include "tessera/optim/parameter_groups.hpp"

#include <algorithm>

namespace tessera::optim {

bool matches_glob(std::string_view pattern, std::string_view name) {
  std::size_t p = 0, n = 0;
  std::size_t star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      // The last star takes one more character.
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

double weight_decay_of(const ParameterGroupOptions& options, std::string_view name,
                       int dimensions) {
  const bool excluded =
      std::any_of(options.no_decay_patterns.begin(), options.no_decay_patterns.end(),
                  [&](const std::string& pattern) { return matches_glob(pattern, name); });
  const bool small = dimensions <= 1 && !options.decay_all;
  return excluded || small ? 0.0 : options.weight_decay;
}

}  // namespace tessera::optim
