// SPDX-License-Identifier: Apache-2.0
// Checksums over all ranks.
#include "checkpoint/sum_over_ranks.hpp"

#include "tessera/base/dtype.hpp"

namespace tessera::checkpoint {

// Halves travel apart, so that no signed sum overflows.
void sum_over_ranks(Communicator& group, std::vector<std::uint64_t>& values) {
  std::vector<std::int64_t> halves;
  for (const std::uint64_t value : values) {
    halves.push_back(static_cast<std::int64_t>(value & 0xffffffffu));
    halves.push_back(static_cast<std::int64_t>(value >> 32));
  }
  group
      .all_reduce(halves.data(), static_cast<std::int64_t>(halves.size()), DType::int64,
                  Reduction::sum)
      .wait();
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<std::uint64_t>(halves[2 * i]) +
                (static_cast<std::uint64_t>(halves[2 * i + 1]) << 32);
}

}  // namespace tessera::checkpoint
