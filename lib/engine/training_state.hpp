// SPDX-License-Identifier: Apache-2.0
// What the checkpoints of all kinds of training have in common: where they are, what /state holds,
// and how tensors come back.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "tessera/checkpoint/reader.hpp"
#include "tessera/checkpoint/writer.hpp"
#include "tessera/engine/checkpointing.hpp"
#include "tessera/nn/model.hpp"
#include "tessera/optim/loss_scaler.hpp"
#include "tessera/zero/partitioned_optimizer.hpp"

namespace tessera::engine {

/// The JSON texts under /state as values.
struct TrainingState {
  std::int64_t updates = 0;  ///< that the optimizer's states have seen
  std::uint64_t seed = 0;
  int ranks = 1;
  std::string schedule;  ///< its type
  std::int64_t schedule_updates = 0;
  std::optional<optim::LossScalerState> scaler;
  std::string network;  ///< nn::Network::extra_state
  std::string client_state;
};

checkpoint::State to_state(const TrainingState& state);
/// What a resume needs: updates, schedule_updates, scaler. Errors: io without /state/engine.
TrainingState read_training_state(const checkpoint::Reader& reader);
/// As saved; "" if there was none.
std::string client_state_of(const checkpoint::Reader& reader);
std::string network_state_of(const checkpoint::Reader& reader);

/// Errors: invalid_argument for a tag that cannot be a file's name.
std::string checkpoint_path(const std::string& folder, const std::string& tag, std::int64_t step);
/// Errors: invalid_argument for what is not JSON.
void check_client_state(const std::string& text);

/// Parameters and, by the options, optimizer states. `before_change` is called when everything is
/// checked and loading begins. Collective.
LoadOutcome load_tensors(const nn::Network& network, zero::PartitionedOptimizer& optimizer,
                         const checkpoint::Reader& reader, const LoadOptions& options,
                         const std::function<void()>& before_change = {});

/// Finds and opens a checkpoint as Engine::load_checkpoint says and hands it to `load`. Collective.
LoadOutcome load_from(Communicator& group, const std::string& path, const LoadOptions& options,
                      const std::function<LoadOutcome(const checkpoint::Reader&)>& load);

}  // namespace tessera::engine
