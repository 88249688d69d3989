// SPDX-License-Identifier: Apache-2.0
// tessera train: trains as a run file says.
#include <memory>

#include <CLI/CLI.hpp>

#include "tessera/engine/trainer.hpp"

#include "apps/tessera/run_file.hpp"
#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

struct Arguments {
  RunFileArguments run_file;
  engine::TrainRequest request;
};

int train_all(const Arguments& arguments) {
  return on_configured_ranks(arguments.run_file, {},
                             [&](Runtime& runtime, config::RunConfig config) {
                               engine::TrainRequest request = arguments.request;
                               request.stop_on_signals = true;
                               request.threads = choose_threads(runtime, config.run.threads);
                               engine::train(runtime, std::move(config), request);
                             });
}

}  // namespace

void add_train(CLI::App& app, Command& command) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub = app.add_subcommand("train", "Train a model as a run file says");
  sub->footer(
      "Continues from the newest whole checkpoint in the run's folder unless told otherwise, and "
      "always saves\n"
      "a last one. SIGUSR1 or SIGTERM saves and stops; REQUEUE in the run's folder then says that "
      "more is to do.\n"
      "Example: mpirun -n 4 --hostfile hostfiles/local.txt --bind-to none tessera train run.yaml");
  add_run_file(*sub, arguments->run_file);
  sub->add_option(
         "--resume", arguments->request.resume,
         "auto: continue if there is a checkpoint; never: start again; or a checkpoint file")
      ->type_name("auto|never|PATH")
      ->capture_default_str();
  sub->add_option("--steps", arguments->request.stop_after,
                  "Stop when this step is done; the schedule stays as it is")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  sub->callback([&command, arguments] { command = [arguments] { return train_all(*arguments); }; });
}

}  // namespace tessera::app
