// SPDX-License-Identifier: Apache-2.0
// How the ranks of a group share the tokens of sequences.
#pragma once

#include <cstdint>
#include <vector>

#include "tessera/base/interval.hpp"

namespace tessera {
class Communicator;
}

namespace tessera::autograd {

/// Every rank has the same rows, and of each row the positions of some intervals, one after the
/// other.
struct SequenceShards {
  Communicator* group;
  std::vector<std::vector<Interval>> tokens;  // by rank, ascending; together all positions of a row

  std::int64_t count(std::size_t rank) const {
    std::int64_t sum = 0;
    for (const Interval& piece : tokens[rank]) sum += piece.size();
    return sum;
  }
  std::int64_t positions() const {
    std::int64_t sum = 0;
    for (std::size_t rank = 0; rank < tokens.size(); ++rank) sum += count(rank);
    return sum;
  }
};

}  // namespace tessera::autograd
