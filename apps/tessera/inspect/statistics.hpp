// SPDX-License-Identifier: Apache-2.0
// Minimum, maximum, mean and root mean square of a tensor.
#pragma once

#include <cstdint>

#include "apps/tessera/inspect/contents.hpp"

namespace tessera::app {

/// Over the finite elements; NaN where there are none.
struct Statistics {
  double min = 0, max = 0, mean = 0, rms = 0;
  std::int64_t nonfinite = 0;
};

/// Reads the tensor block by block.
Statistics measure(const Contents& contents, const TensorEntry& entry);

/// Calls visit(begin, count) for blocks of a tensor of `elements` that fit a bounded buffer.
template <typename Visit>
void for_each_block(std::int64_t elements, Visit&& visit) {
  constexpr std::int64_t kBlock = std::int64_t{1} << 17;
  for (std::int64_t begin = 0; begin < elements; begin += kBlock)
    visit(begin, elements - begin < kBlock ? elements - begin : kBlock);
}

}  // namespace tessera::app
