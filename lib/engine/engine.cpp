// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/engine.hpp"

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/parallel/evaluation.hpp"
#include "tessera/parallel/model_state.hpp"

namespace tessera::engine {

Engine::Engine(Communicator& group, nn::Network& model, const EngineOptions& options)
    : group_(group),
      model_(model),
      options_(options),
      stream_(current_stream(options.zero.device)),
      optimizer_(group, options.zero),
      binding_(model, optimizer_),
      schedule_(optim::make_schedule(options.schedule, options.zero.rule.lr)) {
  if (options.loss_scaler) scaler_.emplace(*options.loss_scaler);
  parallel::add_parameters(model, optimizer_, options.groups);
  optimizer_.commit();
}

autograd::Loss Engine::run_micro_batch(const nn::Batch& batch) {
  autograd::Tape tape(autograd::Recording::on, &binding_, stream_);
  const autograd::Loss loss = model_.forward_loss(tape, batch.on(stream_));
  tape.backward();
  optimizer_.end_micro_batch();
  return loss;
}

void Engine::finish_scaled_step(const zero::StepResult& result) {
  if (!scaler_) return;
  try {
    scaler_->finish_step(!result.applied);
  } catch (const Error& error) {
    fail(error.code(),
         fmt::format("step {}: {}: {}", step_ + 1, result.skipped_reason, error.what()));
  }
}

StepOutcome Engine::train_step(std::span<nn::Batch> micro_batches, std::vector<double> flags) {
  std::int64_t valid = 0, rows = 0;
  for (const nn::Batch& batch : micro_batches) {
    valid += model_.count_targets(batch.targets);
    rows += batch.ids.size(0);
  }
  StepOutcome outcome;
  std::vector<double> totals = {static_cast<double>(valid), static_cast<double>(rows)};
  group_.all_reduce_scalars(totals, Reduction::sum);
  outcome.tokens = static_cast<std::int64_t>(totals[0]);
  TESSERA_CHECK(outcome.tokens > 0, Code::invalid_argument,
                fmt::format("step {} has no valid target in its whole batch", step_ + 1));

  outcome.loss_scale = scaler_ ? scaler_->begin_step() : 1;
  std::vector<autograd::Loss> losses;
  for (nn::Batch& batch : micro_batches) {
    batch.gradient_scale = static_cast<float>(outcome.loss_scale / totals[0]);
    batch.seed = options_.seed;
    batch.step = static_cast<std::uint64_t>(step_);
    losses.push_back(run_micro_batch(batch));
  }
  const optim::ScheduleValue rates = schedule_->at(schedule_updates_);
  wait_for_copy();
  const zero::StepResult result = optimizer_.step({rates.lr, rates.momentum, outcome.loss_scale});
  if (result.applied) ++schedule_updates_;
  finish_scaled_step(result);
  double loss_sum = 0;
  for (const autograd::Loss& loss : losses) loss_sum += loss.sum();

  const std::size_t given = flags.size();
  flags.push_back(loss_sum);
  flags.push_back(pending_ && pending_->save.written() ? 1.0 : 0.0);
  group_.all_reduce_scalars(flags, Reduction::sum);
  outcome.loss = flags[given] / totals[0];
  const bool all_written = flags[given + 1] == static_cast<double>(group_.size());
  flags.resize(given);
  outcome.flags = std::move(flags);
  outcome.learning_rate = rates.lr;
  outcome.gradient_norm = result.grad_norm;
  outcome.skipped = !result.applied;
  outcome.skipped_reason = result.skipped_reason;
  outcome.step = ++step_;
  samples_ += static_cast<std::int64_t>(totals[1]);
  tokens_ += outcome.tokens;
  if (all_written) outcome.saved = finish_save();
  return outcome;
}

}  // namespace tessera::engine
