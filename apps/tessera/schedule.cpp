// SPDX-License-Identifier: Apache-2.0
// tessera schedule: the learning rate of every update as CSV.
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/engine/options.hpp"
#include "tessera/engine/run_setup.hpp"

#include "apps/tessera/run_file.hpp"
#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

struct Arguments {
  RunFileArguments run_file;
  std::int64_t steps = 0;
};

std::int64_t length_of(const config::RunConfig& config, std::int64_t asked) {
  if (asked > 0) return asked;
  if (config.run.total_steps > 0) return config.run.total_steps;
  if (config.engine.scheduler.has("total_num_steps"))
    return static_cast<std::int64_t>(config.engine.scheduler.number("total_num_steps"));
  fail(Code::invalid_argument,
       "the length of this run is not known without its data: say how many rows with --steps N");
}

int print_schedule(const Arguments& arguments) {
  if (launcher_rank() != 0) return 0;
  config::ReadOptions options;
  options.set = arguments.run_file.set;
  options.allow_bare_engine = true;
  options.for_training = false;
  config::RunConfig config = config::read_run_file(arguments.run_file.file, options);
  config::resolve(config, {ranks_to_look_at(0, config), has_bf16_instructions(), {}, {}, {}});
  const config::OptimizerConfig& optimizer = config.engine.optimizer;
  const auto schedule = optim::make_schedule(engine::schedule_options(config.engine), optimizer.lr);
  const double own_momentum = optimizer.type == "SGD" ? optimizer.momentum : optimizer.beta1;
  const std::int64_t steps = length_of(config, arguments.steps);
  std::cout << "step,lr,momentum\n";
  for (std::int64_t k = 0; k < steps; ++k) {
    const optim::ScheduleValue value = schedule->at(k);
    const bool scheduled = value.momentum && optimizer.type != "SGD";
    std::cout << fmt::format("{},{},{}\n", k, json_number(value.lr),
                             json_number(scheduled ? *value.momentum : own_momentum));
  }
  return 0;
}

}  // namespace

void add_schedule(CLI::App& app, Command& command) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub = app.add_subcommand("schedule", "Print the learning rate of every update as CSV");
  add_run_file(*sub, arguments->run_file);
  sub->add_option("--steps", arguments->steps, "Rows to print; default: the run's steps")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  sub->callback(
      [&command, arguments] { command = [arguments] { return print_schedule(*arguments); }; });
}

}  // namespace tessera::app
