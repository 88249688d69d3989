// SPDX-License-Identifier: Apache-2.0
// Training as a sentence: gather, forward, backward, reduce, clip, step.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tessera/checkpoint/background_save.hpp"
#include "tessera/checkpoint/reader.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/engine/checkpointing.hpp"
#include "tessera/nn/model.hpp"
#include "tessera/optim/loss_scaler.hpp"
#include "tessera/optim/parameter_groups.hpp"
#include "tessera/optim/schedule.hpp"
#include "tessera/parallel/pipeline_executor.hpp"
#include "tessera/parallel/unit_binding.hpp"
#include "tessera/zero/partitioned_optimizer.hpp"

namespace tessera::engine {

struct EngineOptions {
  zero::Options zero;
  optim::ScheduleOptions schedule;
  /// Which parameters decay, and how much.
  optim::ParameterGroupOptions groups;
  /// Multiplies the loss before backward, so that small gradients of an fp16 run do not vanish;
  /// nullopt: no scaling.
  std::optional<optim::LossScalerOptions> loss_scaler;
  /// Of the run: dropout.
  std::uint64_t seed = 1234;
  /// Record the work of a micro-batch once and launch it as a whole from then on. Needs a GPU,
  /// stage 0 or 1 and a network that can be recorded: not_supported where one is missing.
  bool cuda_graph = false;
  /// Of a network in stages: the order in which the micro-batches of a step go through them.
  parallel::PipelineKind pipeline = parallel::PipelineKind::one_forward_one_backward;
  /// Of a network in stages, ZeRO stage 3: gather parameters once a step and keep them, instead of
  /// twice a micro-batch.
  bool keep_gathered = true;
};

class RecordedPass;

/// What is known when a step is on its way. The same on every rank.
struct StepStart {
  std::int64_t step = 0;      // number of this step, from 1
  std::int64_t samples = 0;   // rows of the global batch
  std::int64_t tokens = 0;    // valid targets of it
  double loss_scale = 1;      // that multiplies the loss in this step's backward
  std::vector<double> flags;  // sums over ranks of what train_step was given
  /// An asynchronous save that had ended when this step began.
  std::optional<SaveOutcome> saved;
};

/// The same on every rank.
struct StepOutcome : StepStart {
  double loss = 0;  // mean over the valid targets of the global batch, before the update
  double learning_rate = 0;
  double gradient_norm = 0;  // global, before clipping
  bool skipped = false;      // a gradient was not finite; no weight and no state changed
  std::string skipped_reason;
};

/// A model with its partitioned optimizer over one data-parallel group. Where ranks share sequences
/// (nn::SequenceAxis), the group has the ranks of both axes, those of a sequence group next to each
/// other, which are given the same rows. Where the model is split over a tensor group
/// (nn::TensorAxis) or cut into the stages of a pipeline (nn::PipelineAxis),
/// zero::Options::everyone has the ranks of all axes.
///
/// Collective: everything but the queries, over everyone(), in the same order on every rank. Groups
/// and `model` must outlive it.
class Engine {
 public:
  Engine(Communicator& group, nn::Network& model, const EngineOptions& options);
  ~Engine();

  /// The ranks that divide gradients, states and parameters among them.
  Communicator& group() { return group_; }
  /// How many of them have rows of their own, and which rows are this rank's.
  int data_ranks() const { return group_.size() / model_.options().sequence.size; }
  int data_rank() const { return group_.rank() / model_.options().sequence.size; }
  /// All ranks that train the model.
  Communicator& everyone() { return everyone_; }
  /// The communicators that training uses, each once.
  std::vector<Communicator*> communicators();
  nn::Network& model() { return model_; }
  /// Waits until an asynchronous save has copied what it saves: the caller may change it then,
  /// until the next save begins.
  zero::PartitionedOptimizer& optimizer();
  /// Makes the model's units resident where they are used, for passes outside of train_step.
  autograd::UnitHooks& hooks() { return binding_; }
  /// Of the model's device: EngineOptions::zero.device.
  const Stream& stream() const { return stream_; }
  const optim::Schedule& schedule() const { return *schedule_; }
  /// nullptr without loss scaling.
  const optim::LossScaler* loss_scaler() const { return scaler_ ? &*scaler_ : nullptr; }

  /// Writes `folder/<tag>.h5` with everything that an exact resume needs: parameters, optimizer
  /// states, schedule, counters. A file of that name is replaced when the new one is whole. Not
  /// counted as traffic. Errors: io, and no new file.
  ///
  /// Asynchronous: returns when the file is begun; the state is copied while the next step computes
  /// gradients (from a GPU: before it returns), and written while training goes on. The file is
  /// there when a later step reports it, or finish_save() does; training stays the same to
  /// the bit. Only one save is under way: the next one waits for it, and throws if it failed.
  SaveOutcome save_checkpoint(const std::string& folder, const SaveOptions& options = {});
  /// Waits for the asynchronous save that is under way, if there is one. Its failure is in the
  /// outcome.
  std::optional<SaveOutcome> finish_save();
  bool saving() const { return pending_ != nullptr; }

  /// Continues from a checkpoint file, or from one in a folder: the one with the tag, else the
  /// newest whole one, reporting those that it passed over. From any rank count, stage and dtype.
  /// Errors: io naming the file and what is wrong with it; names that do not fit if strict. Where
  /// an error is found before loading, nothing has changed.
  LoadOutcome load_checkpoint(const std::string& path, const LoadOptions& options = {});
  /// The same from a checkpoint that is open; tag and verify do not matter.
  LoadOutcome load(const checkpoint::Reader& reader, const LoadOptions& options = {});

  /// One optimizer step over zero::Options::accumulation_steps micro-batches, whose row counts may
  /// differ between ranks. `gradient_scale`, `seed` and `step` of the batches are filled in here.
  /// `flags` are summed over the ranks along with the counts, to agree on something (a signal, a
  /// time limit) without a further message. Errors: not_a_number where gradients overflow at the
  /// smallest dynamic loss scale; invalid_argument while steps of start_step() are not finished.
  StepOutcome train_step(std::span<nn::Batch> micro_batches, std::vector<double> flags = {});

  /// train_step() in two halves: a GPU is given all its work, and later tells what became of it.
  /// Start step t + 1, then finish step t, and the GPU never waits for the host. The bits are those
  /// of train_step(). Where the host has to know the outcome of a step before it can start the next
  /// one (on the CPU, and for a dynamic loss scale), start_step() waits for it first.
  StepStart start_step(std::span<nn::Batch> micro_batches, std::vector<double> flags = {});
  /// Waits for the oldest step that is not finished; optimizer().steps() counts it from now on.
  /// Errors: invalid_argument if there is none.
  StepOutcome finish_step();
  /// Started and not finished by finish_step().
  int unfinished_steps() const { return static_cast<int>(flights_.size() + landed_.size()); }
  /// How many steps should be under way: 1 on a GPU. On the CPU there is nothing to gain.
  int steps_ahead() const { return stream_.device().is_cpu() ? 0 : 1; }

  /// Steps started, skipped ones too; samples and tokens that went into them.
  std::int64_t step() const { return step_; }
  std::int64_t samples() const { return samples_; }
  std::int64_t tokens() const { return tokens_; }

  /// What this rank of a pipeline did in the last step; nullptr without stages.
  const parallel::PipelineExecutor* pipeline() const { return pipeline_ ? &*pipeline_ : nullptr; }

 private:
  struct PendingSave {
    SaveOutcome outcome;
    checkpoint::BackgroundSave save;
  };

  /// A step that the device may still be working on.
  struct Flight {
    StepStart start;
    optim::ScheduleValue rates, rates_after_skip;
    std::vector<autograd::Loss> losses;
  };

  void set_up_pipeline();
  std::vector<autograd::Loss> run_micro_batches(std::span<const nn::Batch> batches);
  std::vector<autograd::Loss> run_stages(std::span<const nn::Batch> batches);
  autograd::Loss run_micro_batch(const nn::Batch& batch, int number);
  autograd::Loss run_pass(const nn::Batch& batch, int number);
  StepStart begin_step(std::span<const nn::Batch> micro_batches, std::vector<double> flags);
  void launch_update(Flight& flight);
  StepOutcome land();
  /// Waits for steps until no more than `most` are under way.
  void land_until(std::size_t most);
  void finish_scaled_step(std::int64_t step, const zero::StepResult& result);
  /// What a background save still copies must not change.
  void wait_for_copy();
  checkpoint::Header header(const std::string& config) const;
  checkpoint::State state(const std::string& client_state) const;
  void load_counters(const checkpoint::Reader& reader, const LoadOptions& options);

  /// Of the ranks that find the same loss one brings it.
  bool has_own_loss() const { return model_.options().tensor.rank == 0; }
  /// Of the ranks that have the same rows one brings what is counted over everyone.
  bool counts_rows() const {
    return has_own_loss() && model_.options().sequence.rank == 0 && model_.pipeline().rank == 0;
  }
  /// In a pipeline only the last stage finds losses.
  bool has_losses() const {
    return has_own_loss() && (!model_.in_stages() || model_.pipeline().has_last());
  }

  Communicator& group_;
  Communicator& everyone_;
  nn::Network& model_;
  EngineOptions options_;
  Stream stream_;
  // Before the optimizer: it waits at its end for what the device still writes into their losses.
  std::deque<Flight> flights_;
  std::deque<StepOutcome> landed_;  // that nobody has asked for yet
  zero::PartitionedOptimizer optimizer_;
  parallel::UnitBinding binding_;
  std::unique_ptr<RecordedPass> recorded_pass_;  // nullptr: run_pass()
  std::optional<parallel::PipelineExecutor> pipeline_;
  std::unique_ptr<optim::Schedule> schedule_;
  std::optional<optim::LossScaler> scaler_;
  std::int64_t schedule_updates_ = 0;  // how far the schedule is; skipped steps do not count
  bool former_skipped_ = false;        // the step that landed last
  checkpoint::Snapshot snapshot_;
  std::unique_ptr<PendingSave> pending_;
  std::int64_t step_ = 0;
  std::int64_t samples_ = 0;
  std::int64_t tokens_ = 0;
};

}  // namespace tessera::engine
