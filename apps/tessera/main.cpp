// SPDX-License-Identifier: Apache-2.0
// The command-line program: one file a subcommand.
#include <CLI/CLI.hpp>

#include "apps/tessera/session.hpp"
#include "apps/tessera/subcommands.hpp"

namespace {

constexpr const char* kDescription =
    "Tessera trains and serves models too large for one device.\n"
    "Started alone or by mpirun/srun: mpirun -n 4 tessera train run.yaml";

constexpr const char* kFooter =
    "Examples:\n"
    "  tessera train run.yaml --set engine.zero_optimization.stage=2\n"
    "  tessera generate --model runs/headers --prompt '#include <'\n"
    "  tessera config run.yaml          every value and where it came from\n"
    "Exit codes: 0 done, 2 bad input, 1 anything else.";

}  // namespace

int main(int argc, char** argv) {
  using namespace tessera::app;
  prepare_environment();
  CLI::App app(kDescription, "tessera");
  app.footer(kFooter);
  app.require_subcommand(1);
  app.set_version_flag("--version", version_text());
  Command command;
  for (const auto add :
       {add_train, add_eval, add_generate, add_logits, add_convert, add_inspect, add_config,
        add_schedule, add_estimate, add_plan, add_env, add_launch, add_completion, add_manual})
    add(app, command);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return check_output(report_usage(app, error));
  }
  return check_output(run(command));
}
