// SPDX-License-Identifier: Apache-2.0
// The engine's part in saving and loading: what goes into a file, and what comes out of it.
#include "tessera/engine/checkpointing.hpp"

#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/timer.hpp"
#include "tessera/checkpoint/folder.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/parallel/model_state.hpp"

#include "engine/training_state.hpp"

namespace tessera::engine {

checkpoint::Header Engine::header(const std::string& config) const {
  return {step_, samples_, tokens_, model_.config_json(), config};
}

checkpoint::State Engine::state(const std::string& client_state) const {
  TrainingState state;
  state.updates = optimizer_.steps();
  state.seed = options_.seed;
  state.ranks = everyone_.size();
  state.schedule = options_.schedule.type;
  state.schedule_updates = schedule_updates_;
  if (scaler_) state.scaler = scaler_->state();
  state.network = model_.extra_state();
  state.client_state = client_state;
  return to_state(state);
}

SaveOutcome Engine::save_checkpoint(const std::string& folder, const SaveOptions& options) {
  land_until(0);
  const Traffic::Pause pause(everyone_.traffic());
  const Timer timer;
  if (const auto last = finish_save())
    TESSERA_CHECK(last->error.empty(), Code::io,
                  fmt::format("the save before this one failed: {}", last->error));
  SaveOutcome outcome;
  outcome.step = step_;
  outcome.asynchronous = options.asynchronous;
  agreeing(everyone_, [&] {
    check_client_state(options.client_state);
    outcome.path = checkpoint_path(folder, options.tag, step_);
    if (everyone_.rank() == 0) checkpoint::Folder(folder).create();
  });
  const auto tensors = parallel::records(model_, optimizer_);
  const checkpoint::WriteOptions write{.replace = true};
  if (options.asynchronous) {
    const auto when =
        stream_.device().is_cpu() ? checkpoint::CopyTime::later : checkpoint::CopyTime::at_once;
    // Not make_unique: a PendingSave cannot be moved.
    pending_.reset(new PendingSave{outcome,
                                   {everyone_, outcome.path, header(options.config), tensors,
                                    state(options.client_state), snapshot_, write, when}});
    outcome.seconds_blocked = pending_->outcome.seconds_blocked = timer.seconds();
    return outcome;
  }
  outcome.report = checkpoint::save(everyone_, outcome.path, header(options.config), tensors,
                                    state(options.client_state), write);
  outcome.seconds_blocked = timer.seconds();
  return outcome;
}

std::optional<SaveOutcome> Engine::finish_save() {
  if (!pending_) return std::nullopt;
  const Traffic::Pause pause(everyone_.traffic());
  const Timer timer;
  const std::unique_ptr<PendingSave> pending = std::move(pending_);
  SaveOutcome outcome = pending->outcome;
  try {
    outcome.report = pending->save.commit();
  } catch (const Error& error) {
    if (error.code() != Code::io) throw;
    outcome.error = error.what();
  }
  outcome.seconds_blocked += timer.seconds();
  return outcome;
}

zero::PartitionedOptimizer& Engine::optimizer() {
  wait_for_copy();
  return optimizer_;
}

void Engine::wait_for_copy() {
  if (!pending_) return;
  const Timer timer;
  pending_->save.wait_for_copy();
  pending_->outcome.seconds_blocked += timer.seconds();
}

LoadOutcome Engine::load_checkpoint(const std::string& path, const LoadOptions& options) {
  return load_from(everyone_, path, options,
                   [&](const checkpoint::Reader& reader) { return load(reader, options); });
}

LoadOutcome Engine::load(const checkpoint::Reader& reader, const LoadOptions& options) {
  land_until(0);
  const Traffic::Pause pause(everyone_.traffic());
  LoadOutcome outcome =
      load_tensors(model_, optimizer_, reader, options, [this] { wait_for_copy(); });
  model_.set_extra_state(network_state_of(reader));
  if (!options.load_module_only) load_counters(reader, options);
  return outcome;
}

void Engine::load_counters(const checkpoint::Reader& reader, const LoadOptions& options) {
  const TrainingState state = read_training_state(reader);
  if (options.load_optimizer_states) {
    optimizer_.set_steps(state.updates);
    // Runs without loss scaling have no such state: the scaler begins anew.
    if (scaler_ && state.scaler) scaler_->restore(*state.scaler);
  }
  schedule_updates_ = options.load_lr_scheduler_states ? state.schedule_updates : 0;
  step_ = reader.header().step;
  samples_ = reader.header().samples;
  tokens_ = reader.header().tokens;
}

}  // namespace tessera::engine
