// SPDX-License-Identifier: Apache-2.0
// The engine's part in saving and loading: what goes into a file, and what comes out of it.
#include "tessera/engine/checkpointing.hpp"

#include <filesystem>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/atomic_file.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/timer.hpp"
#include "tessera/checkpoint/find_whole.hpp"
#include "tessera/checkpoint/folder.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/optim/loss_scaler.hpp"
#include "tessera/parallel/model_state.hpp"

namespace tessera::engine {
namespace {

constexpr const char* kEngineState = "engine";
constexpr const char* kScheduleState = "schedule";
constexpr const char* kScalerState = "loss_scaler";
constexpr const char* kClientState = "client_state";

std::string path_of(const std::string& folder, const std::string& tag, std::int64_t step) {
  if (tag.empty()) return checkpoint::Folder(folder).name_of(step);
  TESSERA_CHECK(tag.find('/') == std::string::npos && !is_temporary_name(tag + ".h5"),
                Code::invalid_argument,
                fmt::format("the tag '{}' cannot be a file's name: it must have neither '/' nor "
                            "\".tmp-\"",
                            tag));
  return fmt::format("{}/{}.h5", folder, tag);
}

void check_client_state(const std::string& text) {
  TESSERA_CHECK(text.empty() || nlohmann::json::accept(text), Code::invalid_argument,
                fmt::format("the client state is not JSON: {}", text.substr(0, 80)));
}

// A value of one of the JSON texts under /state.
std::optional<std::int64_t> state_value(const checkpoint::Reader& reader, const std::string& name,
                                        const char* key) {
  const auto found = reader.state().find(name);
  if (found == reader.state().end()) return std::nullopt;
  const auto json = nlohmann::json::parse(found->second, nullptr, false);
  if (!json.is_object() || !json.contains(key) || !json[key].is_number_integer())
    return std::nullopt;
  return json[key].get<std::int64_t>();
}

std::string to_json(const optim::LossScalerState& state) {
  const nlohmann::ordered_json json = {{"scale", state.scale},
                                       {"iteration", state.iteration},
                                       {"last_overflow", state.last_overflow},
                                       {"hysteresis", state.hysteresis}};
  return json.dump();
}

optim::LossScalerState parse_scaler_state(const std::string& text) {
  const auto json = nlohmann::json::parse(text);
  return {json.at("scale"), json.at("iteration"), json.at("last_overflow"), json.at("hysteresis")};
}

void append(std::vector<std::string>& names, std::vector<std::string> more) {
  names.insert(names.end(), std::make_move_iterator(more.begin()),
               std::make_move_iterator(more.end()));
}

}  // namespace

checkpoint::Header Engine::header(const std::string& config) const {
  return {step_, samples_, tokens_, model_.config_json(), config};
}

checkpoint::State Engine::state(const std::string& client_state) const {
  nlohmann::ordered_json engine;
  engine["updates"] = optimizer_.steps();
  engine["seed"] = options_.seed;
  engine["ranks"] = group_.size();
  nlohmann::ordered_json schedule;
  schedule["type"] = options_.schedule.type;
  schedule["updates"] = schedule_updates_;
  checkpoint::State state = {{kEngineState, engine.dump()}, {kScheduleState, schedule.dump()}};
  if (scaler_) state[kScalerState] = to_json(scaler_->state());
  if (!client_state.empty()) state[kClientState] = client_state;
  return state;
}

SaveOutcome Engine::save_checkpoint(const std::string& folder, const SaveOptions& options) {
  const Traffic::Pause pause(group_.traffic());
  const Timer timer;
  if (const auto last = finish_save())
    TESSERA_CHECK(last->error.empty(), Code::io,
                  fmt::format("the save before this one failed: {}", last->error));
  SaveOutcome outcome;
  outcome.step = step_;
  outcome.asynchronous = options.asynchronous;
  agreeing(group_, [&] {
    check_client_state(options.client_state);
    outcome.path = path_of(folder, options.tag, step_);
    if (group_.rank() == 0) checkpoint::Folder(folder).create();
  });
  const auto tensors = parallel::records(model_, optimizer_);
  const checkpoint::WriteOptions write{.replace = true};
  if (options.asynchronous) {
    // Not make_unique: a PendingSave cannot be moved.
    pending_.reset(new PendingSave{outcome,
                                   {group_, outcome.path, header(options.config), tensors,
                                    state(options.client_state), snapshot_, write}});
    outcome.seconds_blocked = pending_->outcome.seconds_blocked = timer.seconds();
    return outcome;
  }
  outcome.report = checkpoint::save(group_, outcome.path, header(options.config), tensors,
                                    state(options.client_state), write);
  outcome.seconds_blocked = timer.seconds();
  return outcome;
}

std::optional<SaveOutcome> Engine::finish_save() {
  if (!pending_) return std::nullopt;
  const Traffic::Pause pause(group_.traffic());
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
  const std::string kind =
      group_.broadcast_text(std::filesystem::is_directory(path) ? "folder" : "file", 0);
  if (kind == "file" || !options.tag.empty()) {
    const std::string file = kind == "file" ? path : path_of(path, options.tag, 0);
    return load(checkpoint::open_whole(group_, file, options.verify), options);
  }
  const auto found =
      checkpoint::find_newest_whole(group_, checkpoint::Folder(path), options.verify);
  TESSERA_CHECK(found.reader.has_value(), Code::io,
                fmt::format("there is no checkpoint step-….h5 in '{}'", path));
  LoadOutcome outcome = load(*found.reader, options);
  for (const checkpoint::PassedOver& passed : found.damaged)
    outcome.damaged.push_back(passed.error);
  return outcome;
}

LoadOutcome Engine::load(const checkpoint::Reader& reader, const LoadOptions& options) {
  const Traffic::Pause pause(group_.traffic());
  const bool with_states = options.load_optimizer_states && !options.load_module_only;
  parallel::NameDifference names = parallel::compare_parameters(model_, reader);
  if (with_states) {
    auto states = parallel::compare_optimizer_states(model_, optimizer_, reader);
    append(names.missing, std::move(states.missing));
    append(names.unexpected, std::move(states.unexpected));
  }
  agreeing(group_, [&] {
    TESSERA_CHECK(options.load_module_only || state_value(reader, kEngineState, "updates"),
                  Code::io,
                  fmt::format("'{}' has no /state/engine: it holds weights but not a training run",
                              reader.path()));
    TESSERA_CHECK(names.empty() || !options.load_module_strict, Code::io,
                  fmt::format("'{}' does not fit the model and its optimizer: {}", reader.path(),
                              names.to_string()));
  });
  wait_for_copy();
  const parallel::LoadRules rules{false, options.allow_vocabulary_change};
  parallel::load_parameters(model_, optimizer_, reader, rules);
  if (with_states) parallel::load_optimizer_states(model_, optimizer_, reader, rules);
  if (!options.load_module_only) load_counters(reader, options);

  LoadOutcome outcome;
  outcome.path = reader.path();
  outcome.step = reader.header().step;
  outcome.missing = std::move(names.missing);
  outcome.unexpected = std::move(names.unexpected);
  if (const auto found = reader.state().find(kClientState); found != reader.state().end())
    outcome.client_state = found->second;
  return outcome;
}

// Runs without loss scaling have no such state: the scaler begins anew.
void Engine::load_scaler(const checkpoint::Reader& reader) {
  const auto found = reader.state().find(kScalerState);
  if (!scaler_ || found == reader.state().end()) return;
  try {
    scaler_->restore(parse_scaler_state(found->second));
  } catch (const nlohmann::json::exception& error) {
    fail(Code::io,
         fmt::format("'{}': /state/{} is damaged: {}", reader.path(), kScalerState, error.what()));
  }
}

void Engine::load_counters(const checkpoint::Reader& reader, const LoadOptions& options) {
  const std::int64_t updates = *state_value(reader, kEngineState, "updates");
  if (options.load_optimizer_states) {
    optimizer_.set_steps(updates);
    load_scaler(reader);
  }
  // Older files have no position of their own: the schedule moved with the updates.
  schedule_updates_ = options.load_lr_scheduler_states
                          ? state_value(reader, kScheduleState, "updates").value_or(updates)
                          : 0;
  step_ = reader.header().step;
  samples_ = reader.header().samples;
  tokens_ = reader.header().tokens;
}

}  // namespace tessera::engine
