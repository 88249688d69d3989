// SPDX-License-Identifier: Apache-2.0
// Sequences that several ranks share, and who has which tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "tessera/base/interval.hpp"

namespace tessera {
class Communicator;
}

namespace tessera::nn {

/// The ranks that have the same rows, each some tokens of every row, and the same parameters. Every
/// rank is given whole rows and takes its tokens.
struct SequenceAxis {
  int size = 1;
  int rank = 0;
  /// As TensorAxis::group.
  Communicator* group = nullptr;
};

/// The positions of a row that each rank of the axis has, as even as they can be. Errors:
/// invalid_config when there are fewer positions than ranks, naming the sizes that would work.
std::vector<std::vector<Interval>> token_shares(const SequenceAxis& axis, std::int64_t positions);

/// How many of them this rank has.
std::int64_t token_count(const SequenceAxis& axis, std::int64_t positions);

}  // namespace tessera::nn
