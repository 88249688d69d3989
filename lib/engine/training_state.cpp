// SPDX-License-Identifier: Apache-2.0
#include "engine/training_state.hpp"

#include <filesystem>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/atomic_file.hpp"
#include "tessera/base/error.hpp"
#include "tessera/checkpoint/find_whole.hpp"
#include "tessera/checkpoint/folder.hpp"
#include "tessera/parallel/model_state.hpp"

namespace tessera::engine {
namespace {

constexpr const char* kEngineState = "engine";
constexpr const char* kScheduleState = "schedule";
constexpr const char* kScalerState = "loss_scaler";
constexpr const char* kClientState = "client_state";
constexpr const char* kNetworkState = "network";

std::string text_of(const checkpoint::Reader& reader, const char* name) {
  const auto found = reader.state().find(name);
  return found == reader.state().end() ? std::string() : found->second;
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

std::optional<optim::LossScalerState> read_scaler(const checkpoint::Reader& reader) {
  const auto found = reader.state().find(kScalerState);
  if (found == reader.state().end()) return std::nullopt;
  try {
    const auto json = nlohmann::json::parse(found->second);
    return optim::LossScalerState{json.at("scale"), json.at("iteration"), json.at("last_overflow"),
                                  json.at("hysteresis")};
  } catch (const nlohmann::json::exception& error) {
    fail(Code::io,
         fmt::format("'{}': /state/{} is damaged: {}", reader.path(), kScalerState, error.what()));
  }
}

void append(std::vector<std::string>& names, std::vector<std::string> more) {
  names.insert(names.end(), std::make_move_iterator(more.begin()),
               std::make_move_iterator(more.end()));
}

}  // namespace

checkpoint::State to_state(const TrainingState& state) {
  nlohmann::ordered_json engine;
  engine["updates"] = state.updates;
  engine["seed"] = state.seed;
  engine["ranks"] = state.ranks;
  nlohmann::ordered_json schedule;
  schedule["type"] = state.schedule;
  schedule["updates"] = state.schedule_updates;
  checkpoint::State texts = {{kEngineState, engine.dump()}, {kScheduleState, schedule.dump()}};
  if (state.scaler) texts[kScalerState] = to_json(*state.scaler);
  if (!state.network.empty()) texts[kNetworkState] = state.network;
  if (!state.client_state.empty()) texts[kClientState] = state.client_state;
  return texts;
}

TrainingState read_training_state(const checkpoint::Reader& reader) {
  const auto updates = state_value(reader, kEngineState, "updates");
  TESSERA_CHECK(updates.has_value(), Code::io,
                fmt::format("'{}' has no /state/engine: it holds weights but not a training run",
                            reader.path()));
  TrainingState state;
  state.updates = *updates;
  // Older files have no position of their own: the schedule moved with the updates.
  state.schedule_updates = state_value(reader, kScheduleState, "updates").value_or(*updates);
  state.scaler = read_scaler(reader);
  return state;
}

std::string client_state_of(const checkpoint::Reader& reader) {
  return text_of(reader, kClientState);
}

std::string network_state_of(const checkpoint::Reader& reader) {
  return text_of(reader, kNetworkState);
}

std::string checkpoint_path(const std::string& folder, const std::string& tag, std::int64_t step) {
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

LoadOutcome load_tensors(const nn::Network& network, zero::PartitionedOptimizer& optimizer,
                         const checkpoint::Reader& reader, const LoadOptions& options,
                         const std::function<void()>& before_change) {
  const bool with_states = options.load_optimizer_states && !options.load_module_only;
  parallel::NameDifference names = parallel::compare_parameters(network, reader);
  if (with_states) {
    auto states = parallel::compare_optimizer_states(network, optimizer, reader);
    append(names.missing, std::move(states.missing));
    append(names.unexpected, std::move(states.unexpected));
  }
  agreeing(optimizer.everyone(), [&] {
    if (!options.load_module_only) read_training_state(reader);
    TESSERA_CHECK(names.empty() || !options.load_module_strict, Code::io,
                  fmt::format("'{}' does not fit the model and its optimizer: {}", reader.path(),
                              names.to_string()));
  });
  if (before_change) before_change();
  const parallel::LoadRules rules{false, options.allow_vocabulary_change};
  parallel::load_parameters(network, optimizer, reader, rules);
  if (with_states) parallel::load_optimizer_states(network, optimizer, reader, rules);

  LoadOutcome outcome;
  outcome.path = reader.path();
  outcome.step = reader.header().step;
  outcome.missing = std::move(names.missing);
  outcome.unexpected = std::move(names.unexpected);
  outcome.client_state = client_state_of(reader);
  return outcome;
}

LoadOutcome load_from(Communicator& group, const std::string& path, const LoadOptions& options,
                      const std::function<LoadOutcome(const checkpoint::Reader&)>& load) {
  const std::string kind =
      group.broadcast_text(std::filesystem::is_directory(path) ? "folder" : "file", 0);
  if (kind == "file" || !options.tag.empty()) {
    const std::string file = kind == "file" ? path : checkpoint_path(path, options.tag, 0);
    return load(checkpoint::open_whole(group, file, options.verify));
  }
  const auto found = checkpoint::find_newest_whole(group, checkpoint::Folder(path), options.verify);
  TESSERA_CHECK(found.reader.has_value(), Code::io,
                fmt::format("there is no checkpoint step-….h5 in '{}'", path));
  LoadOutcome outcome = load(*found.reader);
  for (const checkpoint::PassedOver& passed : found.damaged)
    outcome.damaged.push_back(passed.error);
  return outcome;
}

}  // namespace tessera::engine
