// SPDX-License-Identifier: Apache-2.0
// The collectives of the hybrid transport as operations, in rounds of bounded size.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/base_communicator.hpp"
#include "comm/hybrid/node_plan.hpp"
#include "comm/mpi/messages.hpp"
#include "comm/shm/shared_node.hpp"
#include "comm/shm/steps.hpp"

namespace tessera::comm {

/// A round: the node's ranks show a chunk of every piece; each rank folds the node's contributions
/// to the pieces it works for, sends the partial sums to the owners, and folds what the other nodes
/// send.
class TwoLevelReduceScatter : public Operation {
 public:
  TwoLevelReduceScatter(Group& group, SharedNode& node, const NodePlan& plan,
                        std::vector<Part> parts, DType dtype, Reduction reduction);
  void announce();
  bool execute() override;
  bool complete() override { return node_.all_drained(last_round_); }
  std::vector<int> missing() const override;

 private:
  enum class State { begin, shown, exchanging };
  void show();
  void fold_for_clients();
  void fold_partials();
  void fold_node(int owner, std::byte* target);
  std::int64_t length(int owner) const;
  const std::byte* shown_by(int local, int owner) const;

  Group& group_;
  SharedNode& node_;
  const NodePlan& plan_;
  std::vector<Part> parts_;
  DType dtype_;
  DType wide_;
  Reduction reduction_;
  std::int64_t width_;
  std::int64_t wide_width_;
  std::int64_t chunk_;
  std::vector<Step> steps_;
  std::size_t at_ = 0;
  State state_ = State::begin;
  const std::int64_t number_;
  bool announced_ = false;
  std::int64_t last_round_ = 0;
  std::vector<int> clients_;
  std::vector<int> local_end_;       ///< the fold of one node
  std::vector<int> nodes_end_;       ///< the fold over nodes
  std::vector<std::byte> outgoing_;  ///< a partial sum for each client
  std::vector<std::byte> partials_;  ///< one from each node
  Messages messages_;
};

/// A round: each rank sends a chunk of its piece to one rank of every other node; what came in and
/// the own chunk lie in staging, from where the node's ranks copy everything.
class TwoLevelAllGather : public Operation {
 public:
  TwoLevelAllGather(Group& group, SharedNode& node, const NodePlan& plan, int most_clients,
                    std::vector<Part> parts, DType dtype);
  bool execute() override;

 private:
  enum class State { begin, receiving, filled };
  void exchange();
  void collect();
  std::int64_t bytes_of(int owner) const;

  Group& group_;
  SharedNode& node_;
  const NodePlan& plan_;
  std::vector<Part> parts_;
  std::int64_t width_;
  std::int64_t chunk_;
  std::vector<Step> steps_;
  std::size_t at_ = 0;
  State state_ = State::begin;
  std::vector<int> clients_;
  Messages messages_;
};

}  // namespace tessera::comm
