// SPDX-License-Identifier: Apache-2.0
// Joins a model to the partitioned optimizer that holds its parameters.
#pragma once

#include "tessera/autograd/tape.hpp"
#include "tessera/nn/model.hpp"
#include "tessera/zero/partitioned_optimizer.hpp"

namespace tessera::parallel {

/// Hears from the tape which unit is in use: gathers it (and starts on the next), points the
/// model's parameters at the optimizer's memory, and hands gradients over as soon as a unit is
/// done. Model and optimizer must outlive it. Collective: every call, because gathering and
/// reducing are.
class UnitBinding final : public autograd::UnitHooks {
 public:
  UnitBinding(nn::Network& model, zero::PartitionedOptimizer& optimizer);

  void acquire(int unit, autograd::Phase phase) override;
  void release(int unit, autograd::Phase phase) override;
  void gradients_ready(int unit) override;
  void progress() override;

  /// For micro-batches that go through the network side by side, in a pipeline: units of stage 3
  /// stay gathered until the step if `keep`; and where gradients accumulate, which of them have
  /// been written is kept from begin_step() on.
  void pipe(bool keep);
  void begin_step();

  /// What acquire() does to the model: points it at the unit's parameters, and where they are about
  /// to be written at their gradients; without prefetching or letting communication move on.
  void attach(int unit, autograd::Phase phase);

 private:
  bool keeps_written() const { return piped_ && optimizer_.accumulates_locally(); }
  /// Units of the same stage that come after `unit` in the direction.
  int units_left(int unit, zero::Direction direction) const;
  void attach_values(int unit);
  void attach_gradients(int unit);

  nn::Network& model_;
  zero::PartitionedOptimizer& optimizer_;
  bool piped_ = false, keeps_ = false;
};

}  // namespace tessera::parallel
