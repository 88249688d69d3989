// SPDX-License-Identifier: Apache-2.0
// Forward and backward of micro-batches as one launch each.
#pragma once

#include <cstdint>
#include <list>
#include <vector>

#include "tessera/autograd/head_loss.hpp"
#include "tessera/device/arena.hpp"
#include "tessera/device/graph.hpp"
#include "tessera/nn/model.hpp"
#include "tessera/parallel/unit_binding.hpp"
#include "tessera/zero/partitioned_optimizer.hpp"

namespace tessera::engine {

/// Errors: not_supported, naming run.cuda_graph and what would work, unless parameters and
/// gradients keep their places in the memory of a GPU and the network's pass can be recorded.
void check_recordable(const nn::Network& model, const zero::Options& options);

/// Runs the first micro-batch of each shape as it is, records the second one in a graph, and
/// launches that graph for it and all others: the same work, and the same bits. Reductions of
/// gradients start when the whole pass is enqueued.
class RecordedPass {
 public:
  /// For what check_recordable() lets pass.
  RecordedPass(nn::Network& model, zero::PartitionedOptimizer& optimizer,
               parallel::UnitBinding& binding, const Stream& stream);

  /// False for what comes after kMostShapes others: its memory would be one more that is kept.
  bool takes(const nn::Batch& batch) const;
  /// The pass of a batch in host memory, up to end_micro_batch(). Collective.
  autograd::Loss run(const nn::Batch& batch);

  static constexpr std::size_t kMostShapes = 8;

 private:
  /// A unit whose gradients are complete, and which of its parameters got one.
  struct Ready {
    int unit;
    std::vector<bool> written;
  };
  class Hooks;

  /// Passes of one shape that treat the gradients that are there alike.
  struct Shape {
    autograd::PassMemory memory() const;

    bool accumulates;
    Tensor ids, targets, losses;
    Buffer variables;
    int runs = 0;
    Graph graph;
    std::int64_t flops = 0;
    std::vector<Ready> ready;
  };

  bool is_of(const Shape& shape, const nn::Batch& batch) const;
  Shape& shape_of(const nn::Batch& batch);
  void fill(const Shape& shape, const nn::Batch& batch);
  void run_pass(Shape& shape, const nn::Batch& batch);
  void record(Shape& shape, const nn::Batch& batch);
  void hand_over(const Shape& shape);

  nn::Network& model_;
  zero::PartitionedOptimizer& optimizer_;
  parallel::UnitBinding& binding_;
  Stream stream_;
  Arena arena_;
  std::list<Shape> shapes_;
};

}  // namespace tessera::engine
