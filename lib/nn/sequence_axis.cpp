// SPDX-License-Identifier: Apache-2.0
#include "tessera/nn/sequence_axis.hpp"

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::nn {

std::vector<std::vector<Interval>> token_shares(const SequenceAxis& axis, std::int64_t positions) {
  TESSERA_CHECK(axis.size <= positions, Code::invalid_config,
                fmt::format("mesh.sequence is {} but a sequence has {} tokens: every rank needs at "
                            "least one; a sequence axis of 1 to {} works",
                            axis.size, positions, positions));
  std::vector<std::vector<Interval>> shares;
  for (int rank = 0; rank < axis.size; ++rank)
    shares.push_back({balanced_share(positions, axis.size, rank)});
  return shares;
}

std::int64_t token_count(const SequenceAxis& axis, std::int64_t positions) {
  if (axis.size == 1) return positions;
  const auto shares = token_shares(axis, positions);
  std::int64_t count = 0;
  for (const Interval& piece : shares[static_cast<std::size_t>(axis.rank)]) count += piece.size();
  return count;
}

}  // namespace tessera::nn
