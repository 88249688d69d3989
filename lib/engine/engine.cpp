// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/engine.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/timeline.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/parallel/evaluation.hpp"
#include "tessera/parallel/model_state.hpp"

#include "engine/recorded_pass.hpp"

namespace tessera::engine {

namespace {

parallel::PipelineShape shape_of(const nn::Network& model, const EngineOptions& options) {
  const nn::PipelineAxis& axis = model.pipeline();
  return parallel::PipelineShape{options.pipeline, axis.size, options.zero.accumulation_steps,
                                 static_cast<int>(axis.own.size())}
      .resolved();
}

/// Whether the micro-batches go through a rank's layers at different times.
bool goes_apart(const parallel::PipelineShape& shape) {
  return shape.chunks > 1 || shape.splits_backward();
}

zero::Options zero_options(const nn::Network& model, const EngineOptions& options) {
  zero::Options zero = options.zero;
  if (!model.in_stages()) return zero;
  const parallel::PipelineShape shape = shape_of(model, options);
  zero.units_apart = goes_apart(shape);
  TESSERA_CHECK(
      !zero.units_apart || zero.stage > 0 || !zero.reduce_every_micro_batch ||
          shape.micro_batches == 1,
      Code::not_supported,
      fmt::format("schedule {} with comm.reduce_every_micro_batch needs ZeRO stage 1, 2 or 3: "
                  "stage 0 has one gradient for all micro-batches, which go through a rank's "
                  "layers at different times. Or use 1f1b or gpipe",
                  parallel::to_string(shape.kind)));
  return zero;
}

}  // namespace

Engine::Engine(Communicator& group, nn::Network& model, const EngineOptions& options)
    : group_(group),
      everyone_(options.zero.everyone ? *options.zero.everyone : group),
      model_(model),
      options_(options),
      stream_(current_stream(options.zero.device)),
      optimizer_(group, zero_options(model, options)),
      binding_(model, optimizer_),
      schedule_(optim::make_schedule(options.schedule, options.zero.rule.lr)) {
  if (options.loss_scaler) scaler_.emplace(*options.loss_scaler);
  if (options.cuda_graph) {
    check_recordable(model, options.zero);
    recorded_pass_ = std::make_unique<RecordedPass>(model, optimizer_, binding_, stream_);
  }
  parallel::add_parameters(model, optimizer_, options.groups);
  optimizer_.commit();
  if (model.in_stages()) set_up_pipeline();
}

void Engine::set_up_pipeline() {
  model_.pipeline().group->open_device(stream_.device());
  pipeline_.emplace(model_, parallel::make_pipeline_schedule(shape_of(model_, options_)), stream_);
  binding_.pipe(options_.keep_gathered);
}

Engine::~Engine() = default;

std::vector<Communicator*> Engine::communicators() {
  std::vector<Communicator*> list = {&group_};
  const nn::ModelOptions& model = model_.options();
  if (model.sequence.size > 1) list.push_back(model.sequence.group);
  if (model.tensor.group != nullptr) list.push_back(model.tensor.group);
  if (Communicator* const line = model_.pipeline().group) list.push_back(line);
  for (const auto& [name, group] : model_.pipeline().ties) list.push_back(group);
  if (&everyone_ != &group_) list.push_back(&everyone_);
  return list;
}

std::vector<autograd::Loss> Engine::run_micro_batches(std::span<const nn::Batch> batches) {
  if (pipeline_) return run_stages(batches);
  std::vector<autograd::Loss> losses;
  for (const nn::Batch& batch : batches)
    losses.push_back(run_micro_batch(batch, static_cast<int>(losses.size())));
  return losses;
}

std::vector<autograd::Loss> Engine::run_stages(std::span<const nn::Batch> batches) {
  binding_.begin_step();
  const std::vector<nn::Unit>& units = model_.units();
  return pipeline_->run(batches, binding_, [&](int stage) {
    const auto is_of_stage = [stage](const nn::Unit& unit) { return unit.stage == stage; };
    const auto first = std::ranges::find_if(units, is_of_stage);
    const auto count = std::count_if(units.begin(), units.end(), is_of_stage);
    optimizer_.end_micro_batch(static_cast<int>(first - units.begin()), static_cast<int>(count));
  });
}

autograd::Loss Engine::run_micro_batch(const nn::Batch& batch, int number) {
  const bool recorded = recorded_pass_ && recorded_pass_->takes(batch);
  const autograd::Loss loss = recorded ? recorded_pass_->run(batch) : run_pass(batch, number);
  optimizer_.end_micro_batch();
  return loss;
}

autograd::Loss Engine::run_pass(const nn::Batch& batch, int number) {
  const auto details = [number] { return SpanDetails{.micro_batch = number}; };
  autograd::Tape tape(autograd::Recording::on, &binding_, stream_);
  autograd::Loss loss;
  {
    const ScopedSpan span(SpanKind::forward, "forward", details);
    loss = model_.forward_loss(tape, batch.on(stream_));
  }
  const ScopedSpan span(SpanKind::backward, "backward", details);
  tape.backward();
  return loss;
}

void Engine::finish_scaled_step(std::int64_t step, const zero::StepResult& result) {
  if (!scaler_) return;
  try {
    scaler_->finish_step(!result.applied);
  } catch (const Error& error) {
    fail(error.code(), fmt::format("step {}: {}: {}", step, result.skipped_reason, error.what()));
  }
}

StepStart Engine::begin_step(std::span<const nn::Batch> micro_batches, std::vector<double> flags) {
  StepStart start;
  std::int64_t valid = 0, rows = 0;
  for (const nn::Batch& batch : counts_rows() ? micro_batches : std::span<const nn::Batch>()) {
    valid += model_.count_targets(batch.targets);
    rows += batch.ids.size(0);
  }
  const std::size_t given = flags.size();
  for (const std::int64_t count : {valid, rows}) flags.push_back(static_cast<double>(count));
  flags.push_back(pending_ && pending_->save.written() ? 1.0 : 0.0);
  everyone_.all_reduce_scalars(flags, Reduction::sum);
  start.step = step_ + 1;
  start.tokens = static_cast<std::int64_t>(flags[given]);
  TESSERA_CHECK(start.tokens > 0, Code::invalid_argument,
                fmt::format("step {} has no valid target in its whole batch", start.step));
  start.samples = static_cast<std::int64_t>(flags[given + 1]);
  if (flags[given + 2] == static_cast<double>(everyone_.size())) start.saved = finish_save();
  flags.resize(given);
  start.flags = std::move(flags);
  start.loss_scale = scaler_ ? scaler_->begin_step() : 1;
  return start;
}

// Of the steps before, one at most is under way: if it is applied it counts.
void Engine::launch_update(Flight& flight) {
  const auto unknown = static_cast<std::int64_t>(flights_.size());
  flight.rates = schedule_->at(schedule_updates_ + unknown);
  flight.rates_after_skip = schedule_->at(schedule_updates_);
  const auto input = [&](const optim::ScheduleValue& rates) {
    return zero::StepInput{rates.lr, rates.momentum, flight.start.loss_scale};
  };
  wait_for_copy();
  const ScopedSpan span(SpanKind::optimizer, "optimizer step");
  optimizer_.start_step(input(flight.rates), input(flight.rates_after_skip));
}

StepStart Engine::start_step(std::span<nn::Batch> micro_batches, std::vector<double> flags) {
  const bool knows_first = stream_.device().is_cpu() || (scaler_ && scaler_->is_dynamic());
  land_until(knows_first ? 0 : 1);
  Flight flight;
  flight.start = begin_step(micro_batches, std::move(flags));
  for (nn::Batch& batch : micro_batches) {
    batch.gradient_scale =
        static_cast<float>(flight.start.loss_scale / static_cast<double>(flight.start.tokens));
    batch.seed = options_.seed;
    batch.step = static_cast<std::uint64_t>(step_);
  }
  flight.losses = run_micro_batches(micro_batches);
  launch_update(flight);
  ++step_;
  samples_ += flight.start.samples;
  tokens_ += flight.start.tokens;
  flights_.push_back(std::move(flight));
  return flights_.back().start;
}

StepOutcome Engine::land() {
  const ScopedSpan span(SpanKind::optimizer, "finish step");
  const Flight flight = std::move(flights_.front());
  flights_.pop_front();
  StepOutcome outcome;
  static_cast<StepStart&>(outcome) = flight.start;
  if (has_losses())
    for (const autograd::Loss& loss : flight.losses) outcome.loss += loss.sum();
  const zero::StepResult result = optimizer_.finish_step(std::span(&outcome.loss, 1));
  outcome.loss /= static_cast<double>(outcome.tokens);
  outcome.learning_rate = (former_skipped_ ? flight.rates_after_skip : flight.rates).lr;
  outcome.gradient_norm = result.grad_norm;
  outcome.skipped = former_skipped_ = !result.applied;
  outcome.skipped_reason = result.skipped_reason;
  if (result.applied) ++schedule_updates_;
  finish_scaled_step(outcome.step, result);
  return outcome;
}

void Engine::land_until(std::size_t most) {
  while (flights_.size() > most) landed_.push_back(land());
}

StepOutcome Engine::finish_step() {
  TESSERA_CHECK(unfinished_steps() > 0, Code::invalid_argument,
                "finish_step() without a step under way: start_step() first");
  if (landed_.empty()) return land();
  StepOutcome outcome = std::move(landed_.front());
  landed_.pop_front();
  return outcome;
}

StepOutcome Engine::train_step(std::span<nn::Batch> micro_batches, std::vector<double> flags) {
  TESSERA_CHECK(unfinished_steps() == 0, Code::invalid_argument,
                "train_step() while steps of start_step() are under way: finish_step() them first");
  start_step(micro_batches, std::move(flags));
  return finish_step();
}

}  // namespace tessera::engine
