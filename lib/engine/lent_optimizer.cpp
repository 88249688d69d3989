// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/lent_optimizer.hpp"

#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/timer.hpp"
#include "tessera/checkpoint/folder.hpp"
#include "tessera/parallel/model_state.hpp"

#include "engine/training_state.hpp"

namespace tessera::engine {

/// The lent arrays as a network whose mathematics is the caller's: checkpoints need names and
/// shapes.
class LentOptimizer::Arrays final : public nn::Network {
 public:
  explicit Arrays(const zero::FlatLayout& layout)
      : nn::Network({}), parameters_(layout.parameters().size()) {
    units_.push_back({"parameters", {}, 0, 0});
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      parameters_[i] = nn::Parameter(layout.parameters()[i].shape, {});
      units_.back().parameters.push_back({layout.parameters()[i].name, &parameters_[i]});
    }
  }

  std::string config_json() const override { return "{}"; }
  void check(const Tensor&, const Tensor*) const override { no_mathematics(); }
  autograd::Loss forward_loss(autograd::Tape&, const nn::Batch&) override { no_mathematics(); }
  std::int64_t count_targets(const Tensor&) const override { no_mathematics(); }
  Tensor predict(autograd::Tape&, const Tensor&) override { no_mathematics(); }
  DType input_type() const override { return DType::fp32; }
  DType target_type() const override { return DType::fp32; }

 private:
  [[noreturn]] static void no_mathematics() {
    fail(Code::internal, "lent arrays have no forward pass here");
  }

  std::vector<nn::Parameter> parameters_;
};

LentOptimizer::LentOptimizer(Communicator& group, const EngineOptions& options)
    : options_(options),
      optimizer_(group, options.zero),
      schedule_(optim::make_schedule(options.schedule, options.zero.rule.lr)) {
  if (options.loss_scaler) scaler_.emplace(*options.loss_scaler);
}

LentOptimizer::~LentOptimizer() = default;

int LentOptimizer::add(zero::ParamView view) {
  if (!view.options.weight_decay)
    view.options.weight_decay =
        optim::weight_decay_of(options_.groups, view.name, view.shape.rank());
  return optimizer_.add(view);
}

void LentOptimizer::commit() {
  optimizer_.commit();
  arrays_ = std::make_unique<Arrays>(optimizer_.layout());
}

LentOptimizer::Arrays& LentOptimizer::arrays() {
  TESSERA_CHECK(arrays_ != nullptr, Code::invalid_argument,
                "there is no checkpoint before commit: add all arrays and commit first");
  return *arrays_;
}

double LentOptimizer::loss_scale() {
  if (!scale_) scale_ = scaler_ ? scaler_->begin_step() : 1.0;
  return *scale_;
}

StepOutcome LentOptimizer::step() {
  StepOutcome outcome;
  outcome.loss_scale = loss_scale();
  const optim::ScheduleValue rates = schedule_->at(schedule_updates_);
  const zero::StepResult result = optimizer_.step({rates.lr, rates.momentum, outcome.loss_scale});
  scale_.reset();
  outcome.step = ++step_;
  outcome.learning_rate = rates.lr;
  outcome.gradient_norm = result.grad_norm;
  outcome.skipped = !result.applied;
  outcome.skipped_reason = result.skipped_reason;
  if (result.applied) ++schedule_updates_;
  if (scaler_) scaler_->finish_step(outcome.skipped);
  return outcome;
}

SaveOutcome LentOptimizer::save_checkpoint(const std::string& folder, const SaveOptions& options) {
  Communicator& group = optimizer_.group();
  const Traffic::Pause pause(group.traffic());
  const Timer timer;
  SaveOutcome outcome;
  outcome.step = step_;
  agreeing(group, [&] {
    TESSERA_CHECK(!options.asynchronous, Code::not_supported,
                  "lent arrays cannot be saved asynchronously: the caller may change them");
    arrays();
    check_client_state(options.client_state);
    outcome.path = checkpoint_path(folder, options.tag, step_);
    if (group.rank() == 0) checkpoint::Folder(folder).create();
  });
  TrainingState state;
  state.updates = optimizer_.steps();
  state.seed = options_.seed;
  state.ranks = group.size();
  state.schedule = options_.schedule.type;
  state.schedule_updates = schedule_updates_;
  if (scaler_) state.scaler = scaler_->state();
  state.client_state = options.client_state;
  outcome.report =
      checkpoint::save(group, outcome.path, {step_, 0, 0, arrays().config_json(), options.config},
                       parallel::records(arrays(), optimizer_), to_state(state), {.replace = true});
  outcome.seconds_blocked = timer.seconds();
  return outcome;
}

LoadOutcome LentOptimizer::load_checkpoint(const std::string& path, const LoadOptions& options) {
  agreeing(optimizer_.group(), [this] { arrays(); });
  return load_from(optimizer_.group(), path, options,
                   [&](const checkpoint::Reader& reader) { return load(reader, options); });
}

LoadOutcome LentOptimizer::load(const checkpoint::Reader& reader, const LoadOptions& options) {
  const Traffic::Pause pause(optimizer_.group().traffic());
  LoadOutcome outcome = load_tensors(arrays(), optimizer_, reader, options);
  if (options.load_module_only) return outcome;
  const TrainingState state = read_training_state(reader);
  if (options.load_optimizer_states) {
    optimizer_.set_steps(state.updates);
    if (scaler_ && state.scaler) scaler_->restore(*state.scaler);
  }
  schedule_updates_ = options.load_lr_scheduler_states ? state.schedule_updates : 0;
  step_ = reader.header().step;
  scale_.reset();
  return outcome;
}

}  // namespace tessera::engine
