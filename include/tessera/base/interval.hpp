// SPDX-License-Identifier: Apache-2.0
// Ranges of indices, and how ranks share them.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tessera {

/// Indices begin, …, end - 1.
struct Interval {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
  bool operator==(const Interval&) const = default;
};

/// Rank's share of `size` things that are dealt out in order; the first size % ranks ranks get one
/// more.
inline Interval balanced_share(std::int64_t size, int ranks, int rank) {
  const auto before = [&](std::int64_t r) { return size / ranks * r + std::min(r, size % ranks); };
  return {before(rank), before(rank + 1)};
}

}  // namespace tessera
