// SPDX-License-Identifier: Apache-2.0
// The fastest ways of dividing a model over ranks, of those that fit into their memory.
#pragma once

#include <cstdint>
#include <vector>

#include "tessera/planning/forecast.hpp"

namespace tessera::planning {

struct Plan {
  Layout layout;
  Forecast forecast;
};

struct SearchResult {
  /// Fastest first; of each mesh the best of its stages, micro-batches and recomputations, with and
  /// without token shards. Empty when nothing fits.
  std::vector<Plan> plans;
  /// The one that needs least memory, whether it fits or not; no layout divides the work if its
  /// micro_batch is 0.
  Plan smallest;
};

/// Tries every mesh of `ranks` ranks whose data axis divides the batch, with all stages of ZeRO,
/// power-of-two micro-batches and recomputations, on `memory` bytes of each rank. The axes that
/// `most` limits (a size of 1: not to be used) are those that training can use. Pure arithmetic: a
/// second or so for 16384 ranks.
SearchResult search_plans(const Workload& work, const Machine& machine, int ranks,
                          std::int64_t memory, const MeshShape& most);

}  // namespace tessera::planning
