// SPDX-License-Identifier: Apache-2.0
// Runs a network's stages as a pipeline schedule says, and tells what it did.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "tessera/autograd/tape.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/nn/model.hpp"
#include "tessera/parallel/pipeline_schedule.hpp"

namespace tessera::parallel {

/// What a rank did in the last run.
struct PipelineRecord {
  struct Entry {
    PipelineAction action;
    double begin = 0, end = 0;  ///< seconds since the run began; of a GPU: of the host
  };
  std::vector<Entry> entries;
  /// Most activations that it held at once, each of one micro-batch in one stage.
  int peak_activations = 0;
};

/// Executes exactly the list of its rank, one action after the other. The network has been told its
/// stages (nn::Network::take_stages), which are those of the schedule, and its group.
class PipelineExecutor {
 public:
  /// Errors: invalid_argument when network and schedule do not fit together.
  PipelineExecutor(nn::Network& network, PipelineSchedule schedule, const Stream& stream);
  ~PipelineExecutor();

  const PipelineSchedule& schedule() const { return schedule_; }

  /// Forward and backward of all micro-batches, which every rank of the pipeline has alike, in any
  /// shapes. Calls `gradients_done(stage)` when a micro-batch's gradients of a stage are complete.
  /// Returns the losses on the rank of the last stage, nothing elsewhere. Collective over the
  /// network's pipeline group.
  std::vector<autograd::Loss> run(std::span<const nn::Batch> micro_batches,
                                  autograd::UnitHooks& hooks,
                                  const std::function<void(int stage)>& gradients_done);

  const PipelineRecord& record() const { return record_; }

 private:
  class Run;
  struct Links;

  nn::Network& network_;
  PipelineSchedule schedule_;
  Stream stream_;
  std::unique_ptr<Links> links_;
  PipelineRecord record_;
};

/// The loss of one batch without gradients, through the stages of a network: on the rank of the
/// last stage, an unknown one elsewhere. Collective over the network's pipeline group.
autograd::Loss evaluate_stages(nn::Network& network, autograd::UnitHooks& hooks,
                               const nn::Batch& batch, const Stream& stream);

}  // namespace tessera::parallel
