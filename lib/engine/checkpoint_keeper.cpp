// SPDX-License-Identifier: Apache-2.0
#include "engine/checkpoint_keeper.hpp"

#include <filesystem>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/background_thread.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/checkpoint/find_whole.hpp"

namespace tessera::engine {
namespace {

using Json = nlohmann::ordered_json;

std::string file_name(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

// What a save can die of while training is well.
bool spares_training(const Error& error) {
  return error.code() == Code::io || error.code() == Code::out_of_memory;
}

}  // namespace

CheckpointKeeper::CheckpointKeeper(Runtime& runtime, const std::string& folder,
                                   const config::CheckpointConfig& config, const EventLog& events)
    : runtime_(runtime), folder_(folder), config_(config), events_(events) {}

CheckpointKeeper::~CheckpointKeeper() {
  if (cleaner_.joinable()) cleaner_.join();
}

void CheckpointKeeper::tidy() {
  agreeing(runtime_.world(), [&] {
    if (root()) folder_.remove_leftovers();
  });
}

std::optional<checkpoint::Reader> CheckpointKeeper::find(const std::string& resume) {
  if (resume == "never") return std::nullopt;
  if (resume != "auto") return checkpoint::open_whole(runtime_.world(), resume, config_.verify);
  checkpoint::FoundCheckpoint found =
      checkpoint::find_newest_whole(runtime_.world(), folder_, config_.verify);
  for (const checkpoint::PassedOver& passed : found.damaged) {
    damaged_.push_back(passed.entry.path);
    events_.add("damaged", passed.entry.step,
                {{"file", file_name(passed.entry.path)}, {"error", passed.error}});
    if (root())
      log_warning(fmt::format("passing over a damaged checkpoint, using {} instead: {}",
                              file_name(found.reader->path()), passed.error));
  }
  return std::move(found.reader);
}

void CheckpointKeeper::begin(const Engine& engine, const std::optional<checkpoint::Reader>& from,
                             const std::string& resume) {
  if (from) saved_step_ = engine.step();
  if (resume == "auto") return;
  // Chosen by hand, an earlier step is the newest: `auto` shall find what follows it now.
  agreeing(runtime_.world(), [&] {
    if (!root()) return;
    const std::string aside = folder_.move_later_aside(engine.step());
    if (!aside.empty())
      log_info(fmt::format("moved the checkpoints after step {} to {}", engine.step(), aside));
  });
}

void CheckpointKeeper::save(Engine& engine, const std::string& config_text, bool last) {
  if (const auto outcome = engine.finish_save()) note_saved(*outcome);
  if (saved_step_ == engine.step()) return;
  SaveOptions options;
  options.config = config_text;
  options.asynchronous = config_.asynchronous && !last;
  SaveOutcome outcome;
  try {
    outcome = engine.save_checkpoint(folder_.path(), options);
  } catch (const Error& error) {
    if (!spares_training(error)) throw;
    fail_or_go_on(engine.step(), error.what(), last);
    return;
  }
  saved_step_ = engine.step();
  if (!options.asynchronous) note_saved(outcome, last);
}

void CheckpointKeeper::note_saved(const SaveOutcome& outcome, bool last) {
  if (!outcome.error.empty()) {
    if (saved_step_ == outcome.step) saved_step_ = -1;
    fail_or_go_on(outcome.step, outcome.error, last);
    return;
  }
  std::erase(damaged_, outcome.path);
  if (root()) clean_up(outcome);
  report(outcome);
}

/// Removing a large file takes a file system a while, which training need not wait for either.
void CheckpointKeeper::clean_up(const SaveOutcome& outcome) {
  if (cleaner_.joinable()) cleaner_.join();
  const auto work = [folder = folder_, keep = config_.keep, newest = outcome.path,
                     damaged = damaged_] { folder.keep(keep, newest, damaged); };
  if (outcome.asynchronous)
    cleaner_ = start_background_thread(work);
  else
    work();
}

void CheckpointKeeper::report(const SaveOutcome& outcome) {
  Communicator& world = runtime_.world();
  const Traffic::Pause pause(world.traffic());
  const checkpoint::WriteReport& written = outcome.report;
  const auto largest = [&](auto value) { return world.all_reduce_scalar(value, Reduction::max); };
  const std::int64_t bytes = largest(written.bytes);
  const std::int64_t writes = largest(written.writes);
  const double write_seconds = largest(written.write_seconds);
  const double blocked = largest(outcome.seconds_blocked);
  const double rate =
      written.seconds > 0 ? static_cast<double>(written.file_bytes) / written.seconds : 0;
  Json event;
  event["file"] = file_name(outcome.path);
  event["asynchronous"] = outcome.asynchronous;
  event["bytes"] = written.file_bytes;
  event["largest_rank_bytes"] = bytes;
  event["largest_rank_writes"] = writes;
  event["seconds"] = written.seconds;
  event["seconds_writing"] = write_seconds;
  event["seconds_blocked"] = blocked;
  event["bytes_per_second"] = rate;
  events_.add("save", outcome.step, event);
  log_info(fmt::format(
      "saved {} ({} in {:.2f} s, {}/s{})", outcome.path,
      format_bytes(static_cast<double>(written.file_bytes)), written.seconds, format_bytes(rate),
      outcome.asynchronous ? fmt::format("; training waited {:.3f} s", blocked) : ""));
}

void CheckpointKeeper::fail_or_go_on(std::int64_t step, const std::string& error, bool last) {
  events_.add("save_failed", step, {{"error", error}});
  // Agreement without an error closes the case: what fails later is something new.
  agreeing(runtime_.world(), [&] {
    TESSERA_CHECK(
        !last, Code::not_saved,
        fmt::format("the last checkpoint of this run, of step {}, could not be saved: {}. "
                    "What was trained since the checkpoint before it is lost",
                    step, error));
    TESSERA_CHECK(config_.on_error != config::OnSaveError::stop, Code::not_saved,
                  fmt::format("the checkpoint of step {} could not be saved: {}. Training stops, "
                              "as run.checkpoint.on_error says",
                              step, error));
  });
  if (root())
    log_warning(fmt::format(
        "the checkpoint of step {} could not be saved: {}. Training goes on; the next save tries "
        "again",
        step, error));
}

}  // namespace tessera::engine
