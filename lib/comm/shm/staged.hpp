// SPDX-License-Identifier: Apache-2.0
// Contributions that do not lie in shared memory, moved through staging in rounds.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "comm/base_communicator.hpp"
#include "comm/shm/shared_node.hpp"

namespace tessera::comm {

/// Rounds of: fill this rank's half, wait for all, use everybody's half. The next fill overlaps
/// with slower peers' use, because the halves take turns.
class StagedRounds {
 public:
  StagedRounds() = default;
  StagedRounds(SharedNode& node, std::int64_t rounds, std::function<void(std::int64_t)> fill,
               std::function<void(std::int64_t)> use)
      : node_(&node), rounds_(rounds), fill_(std::move(fill)), use_(std::move(use)) {}

  /// These rounds and then those of `next`.
  StagedRounds then(const StagedRounds& next) const;
  /// True when all rounds are done; never blocks.
  bool advance();

 private:
  SharedNode* node_ = nullptr;
  std::int64_t rounds_ = 0;
  std::int64_t at_ = 0;
  bool filled_ = false;
  std::function<void(std::int64_t)> fill_;
  std::function<void(std::int64_t)> use_;
};

/// What the staged collectives know of the call. The caller keeps it alive.
struct StagedCall {
  SharedNode* node;
  const FoldOrder* order;
  std::vector<Part> parts;
  DType dtype;
  Reduction reduction;
};

StagedRounds staged_reduce_scatter(const StagedCall& call);
StagedRounds staged_all_gather(const StagedCall& call);
StagedRounds staged_broadcast(SharedNode& node, std::byte* data, std::int64_t bytes, int root);
/// `longest`: the most that any rank sends to another; `send` and `receive` count bytes.
StagedRounds staged_all_to_all(SharedNode& node, const std::byte* send, const Pieces& send_bytes,
                               std::byte* receive, const Pieces& receive_bytes,
                               std::int64_t longest);

}  // namespace tessera::comm
