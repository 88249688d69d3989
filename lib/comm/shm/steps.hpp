// SPDX-License-Identifier: Apache-2.0
// Rounds of a call with parts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "comm/base_communicator.hpp"

namespace tessera::comm {

/// Elements [at, at + chunk) of each piece of a part.
struct Step {
  std::size_t part;
  std::int64_t at;
};

inline std::vector<Step> steps_of(const std::vector<Part>& parts, std::int64_t chunk) {
  std::vector<Step> steps;
  for (std::size_t p = 0; p < parts.size(); ++p)
    for (std::int64_t at = 0; at < parts[p].pieces.longest(); at += chunk) steps.push_back({p, at});
  return steps;
}

/// Elements of a rank's piece from `at` on, at most `chunk`.
inline std::int64_t left_in(const Pieces& pieces, int rank, std::int64_t at, std::int64_t chunk) {
  return std::clamp<std::int64_t>(pieces.length(rank) - at, 0, chunk);
}

}  // namespace tessera::comm
