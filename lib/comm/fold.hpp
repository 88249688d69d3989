// SPDX-License-Identifier: Apache-2.0
// The one way in which contributions of several ranks become one: a left fold by rank inside each
// node, then over the nodes, rounded once. Every transport calls this.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tessera/base/dtype.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/comm/node_map.hpp"

namespace tessera::comm {

/// Ranks in the order of the fold.
struct FoldOrder {
  std::vector<int> ranks;      ///< node after node, ascending inside a node
  std::vector<int> node_ends;  ///< where each node ends in `ranks`

  explicit FoldOrder(const NodeMap& nodes);
};

/// What partial sums are held in: fp32 for the 16-bit types, else the type itself.
DType accumulator_of(DType dtype);

struct Fold {
  std::span<const void* const> sources;  ///< in the order of the fold
  std::span<const int> node_ends;        ///< ends of nodes in `sources`
  std::span<void* const> targets;        ///< each gets the result; may equal sources
  DType source_type;
  DType target_type;  ///< source_type, accumulator_of(source_type), or narrower than an fp32 source
  Reduction reduction;
  int ranks;  ///< N of the mean; 0 leaves a mean unscaled (a partial sum)
  std::int64_t count;
};

/// Large folds use this process's threads. Element i depends on the sources' elements i only, and
/// is computed with the same instructions wherever it stands.
void fold(const Fold& request);

/// memcpy by this process's threads.
void copy_bytes(void* target, const void* source, std::int64_t bytes);

}  // namespace tessera::comm
