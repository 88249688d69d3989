// SPDX-License-Identifier: Apache-2.0
// The parts of a PartitionedOptimizer and the state of a step.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tessera/optim/update_rule.hpp"
#include "tessera/zero/partitioned_optimizer.hpp"

#include "zero/context.hpp"
#include "zero/gradient_store.hpp"
#include "zero/held_states.hpp"
#include "zero/parameter_store.hpp"
#include "zero/slice_norm.hpp"
#include "zero/slice_update.hpp"
#include "zero/step_judge.hpp"

namespace tessera::zero {

struct PartitionedOptimizer::Impl {
  Impl(Communicator& communicator, const Options& given);

  enum class Kind { undecided, lent, own };
  /// Where a unit's gradients stand in a step.
  struct Progress {
    bool attached = false;
    int ready = 0;  // micro-batches whose gradients are complete
    int ended = 0;  // and those that are over
    bool operator==(const Progress&) const = default;
  };

  // Declaration
  int add(const ParamView& view, Kind kind);
  void check_view(const ParamView& view) const;
  void check_declaration() const;
  /// Leading elements of each unit that the norm is over.
  std::vector<std::int64_t> counted_elements() const;
  void make_storage();
  void take_values_of_rank_0();
  /// Of lent fp16 arrays: their values.
  void start_masters();
  bool reduces_early() const {
    return options.accumulation_steps > 1 && options.reduce_every_micro_batch;
  }

  // Phases
  void require_committed(const char* what) const;
  void require_own(const char* what) const;
  void require_training(const char* what) const;
  void require_unit(int unit) const;
  void require_parameter(int parameter) const;
  MicroBatch now(int unit) const;
  /// Micro-batches that are over for all units since the last step.
  int finished() const;
  Progress& progress(int unit) { return unit_progress[static_cast<std::size_t>(unit)]; }
  void zero_unwritten(int unit, const std::vector<bool>& written);
  void finish_micro_batch(int index);
  void begin_step();

  // Step
  void finish_gradients();
  /// Adds up the reduced gradients of units that are held more than once.
  void join_copies();
  UpdateValues update_values(const StepInput& input, const StepInput& after_skip) const;
  StepResult result_of(const kernels::StepDecision& decision);
  void explain_skip(const kernels::StepDecision& decision, StepResult& result);
  void update(const UpdateValues& values);

  // Values
  FlatPiece held_piece(int parameter, Range range) const;

  Communicator& group;
  Options options;
  FlatLayout layout;
  Context context;
  std::unique_ptr<optim::UpdateRule> rule;
  Kind kind = Kind::undecided;
  std::vector<ParamView> views;  // of own parameters: without pointers
  std::vector<ParameterRule> rules;
  std::vector<std::pair<int, Communicator*>> copies;  // units that other ranks have too
  std::vector<std::pair<int, int>> twins;             // that this rank has twice

  std::unique_ptr<SliceNorm> norm;
  std::unique_ptr<ParameterStore> parameters;
  std::unique_ptr<GradientStore> gradients;
  std::unique_ptr<HeldStates> states;
  std::unique_ptr<StepJudge> judge;  // where there are gradients

  std::vector<Progress> unit_progress;  // since the last step
  std::int64_t steps = 0;               // applied, of those that are finished
  std::deque<PendingDecision> started;  // steps that are not finished, at most two
};

}  // namespace tessera::zero
