// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/run_file.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/base/mesh_shape.hpp"
#include "tessera/config/compare.hpp"
#include "tessera/engine/options.hpp"

#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

void check_same_everywhere(Communicator& world, const config::RunConfig& config) {
  const std::string mine = config::canonical_text(config);
  const std::string first = world.broadcast_text(mine, 0);
  std::string error;
  if (const auto difference = config::first_difference(first, mine))
    error = fmt::format("the ranks read different run files: {} is {} on rank 0 and {} on rank {}",
                        difference->path, difference->first, difference->second, world.rank());
  world.agree(error, Code::invalid_config);
}

void apply_log_level(const std::string& level) {
  if (level == "debug") set_log_level(LogLevel::debug);
  if (level == "warning") set_log_level(LogLevel::warning);
  if (level == "error") set_log_level(LogLevel::error);
}

}  // namespace

void add_run_file(CLI::App& sub, RunFileArguments& arguments) {
  sub.add_option("run_file", arguments.file, "Run file (YAML, or JSON when it ends in .json)")
      ->required()
      ->type_name("RUN.yaml");
  sub.add_option("--set", arguments.set,
                 "Override a value, e.g. --set engine.zero_optimization.stage=2 (repeatable)")
      ->type_name("path=value")
      ->allow_extra_args(false);
}

void add_ranks(CLI::App& sub, int& ranks, const std::string& purpose) {
  sub.add_option("--ranks", ranks,
                 purpose +
                     " (default: as many as are started, or the fewest that the run file "
                     "takes)")
      ->check(CLI::Range(1, kMostRanks))
      ->type_name("N");
}

int ranks_to_look_at(int asked, const config::RunConfig& config) {
  if (asked > 0) return asked;
  if (launcher_size() > 1) return launcher_size();
  return config::fewest_ranks(config);
}

config::RunConfig read_on_all_ranks(Runtime& runtime, const RunFileArguments& arguments,
                                    config::ReadOptions options) {
  options.set = arguments.set;
  config::RunConfig config;
  agreeing(runtime.world(), [&] {
    config = config::read_run_file(arguments.file, options);
    config::Facts facts;
    facts.ranks = runtime.size();
    facts.bf16_instructions = has_bf16_instructions();
    config::resolve(config, facts);
  });
  check_same_everywhere(runtime.world(), config);
  return config;
}

int on_configured_ranks(const RunFileArguments& arguments, const config::ReadOptions& options,
                        const std::function<void(Runtime&, config::RunConfig)>& body) {
  // The comm section decides how ranks talk, so it has to be read over the simplest transport
  // first.
  CommOptions plain;
  plain.transport = "mpi";
  config::RunConfig config;
  const int code = on_all_ranks(
      plain, [&](Runtime& runtime) { config = read_on_all_ranks(runtime, arguments, options); });
  if (code != 0) return code;
  apply_log_level(config.engine.log_level);
  return on_all_ranks(engine::comm_options(config),
                      [&](Runtime& runtime) { body(runtime, std::move(config)); });
}

}  // namespace tessera::app
