// SPDX-License-Identifier: Apache-2.0
// Training for a program that keeps its own arrays and computes its own gradients.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "tessera/comm/communicator.hpp"
#include "tessera/engine/checkpointing.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/zero/partitioned_optimizer.hpp"

namespace tessera::engine {

/// A partitioned optimizer on lent arrays with what a configuration says besides: a learning-rate
/// schedule, loss scaling, weight decay by name; and checkpoints as Engine's. `add` each array,
/// `commit`, then in every step fill the gradients and call `step`.
///
/// Collective: everything but add and the queries, over `group`, which must outlive it.
class LentOptimizer {
 public:
  LentOptimizer(Communicator& group, const EngineOptions& options);
  ~LentOptimizer();

  zero::PartitionedOptimizer& optimizer() { return optimizer_; }
  /// Returns the parameter's index. Its weight decay is EngineOptions::groups' unless the view says
  /// otherwise.
  int add(zero::ParamView view);
  void commit();

  /// What the loss, and so every gradient of the coming step, has to be multiplied by; 1 without
  /// loss scaling.
  double loss_scale();
  /// Reduces, clips, updates, gathers. The outcome's loss and tokens are 0: nobody tells.
  StepOutcome step();
  /// Steps done, skipped ones too.
  std::int64_t steps() const { return step_; }

  /// As Engine's, with two differences. The file has no model. Saving is not asynchronous:
  /// not_supported.
  SaveOutcome save_checkpoint(const std::string& folder, const SaveOptions& options = {});
  LoadOutcome load_checkpoint(const std::string& path, const LoadOptions& options = {});

 private:
  class Arrays;

  Arrays& arrays();
  LoadOutcome load(const checkpoint::Reader& reader, const LoadOptions& options);

  EngineOptions options_;
  zero::PartitionedOptimizer optimizer_;
  std::unique_ptr<optim::Schedule> schedule_;
  std::optional<optim::LossScaler> scaler_;
  std::unique_ptr<Arrays> arrays_;  // from commit on
  std::optional<double> scale_;     // of the step that has begun
  std::int64_t schedule_updates_ = 0;
  std::int64_t step_ = 0;
};

}  // namespace tessera::engine
