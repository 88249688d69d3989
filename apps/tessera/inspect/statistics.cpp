// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/inspect/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace tessera::app {

Statistics measure(const Contents& contents, const TensorEntry& entry) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  double min = infinity, max = -infinity, sum = 0, squares = 0;
  std::int64_t finite = 0;
  std::vector<double> block;
  for_each_block(entry.shape.numel(), [&](std::int64_t begin, std::int64_t count) {
    block.resize(static_cast<std::size_t>(count));
    contents.read(entry, begin, count, block.data());
    for (const double value : block) {
      if (!std::isfinite(value)) continue;
      ++finite;
      min = std::min(min, value);
      max = std::max(max, value);
      sum += value;
      squares += value * value;
    }
  });
  Statistics result;
  result.nonfinite = entry.shape.numel() - finite;
  if (finite == 0) {
    result.min = result.max = result.mean = result.rms = std::numeric_limits<double>::quiet_NaN();
    return result;
  }
  const auto n = static_cast<double>(finite);
  result.min = min;
  result.max = max;
  result.mean = sum / n;
  result.rms = std::sqrt(squares / n);
  return result;
}

}  // namespace tessera::app
