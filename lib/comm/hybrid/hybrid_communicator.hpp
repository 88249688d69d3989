// SPDX-License-Identifier: Apache-2.0
// Two levels: shared memory inside a node, messages between nodes.
#pragma once

#include <memory>
#include <vector>

#include "comm/hybrid/node_plan.hpp"
#include "comm/mpi/mpi_communicator.hpp"
#include "comm/shm/shared_node.hpp"

namespace tessera::comm {

/// Reductions fold inside each node to partial sums in fp32 and send those; gathered pieces enter a
/// node once. Small and rare operations go through messages between all ranks.
class HybridCommunicator final : public MpiCommunicator {
 public:
  /// `local`: the ranks of this rank's node, whose memory `node` is.
  HybridCommunicator(std::shared_ptr<Group> group, std::shared_ptr<Group> local,
                     std::unique_ptr<SharedNode> node);
  ~HybridCommunicator() override { retire(); }
  const char* transport() const override { return "hybrid"; }

 protected:
  Started start_reduce_scatter(std::vector<Part> parts, DType dtype, Reduction reduction) override;
  Started start_all_gather(std::vector<Part> parts, DType dtype) override;
  Buffer allocate_memory(std::size_t bytes, Purpose purpose) override;
  std::function<void()> transport_closer() override;

 private:
  std::shared_ptr<Group> local_;
  std::shared_ptr<SharedNode> node_;
  NodePlan plan_;
  int most_clients_;
};

}  // namespace tessera::comm
