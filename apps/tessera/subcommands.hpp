// SPDX-License-Identifier: Apache-2.0
// Registration of the subcommands: each add_ function declares its options and, when chosen, sets
// the command to run.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace tessera::app {

/// What the chosen subcommand does; returns the exit code.
using Command = std::function<int()>;

void add_train(CLI::App& app, Command& command);
void add_eval(CLI::App& app, Command& command);
void add_generate(CLI::App& app, Command& command);
void add_logits(CLI::App& app, Command& command);
void add_convert(CLI::App& app, Command& command);
void add_inspect(CLI::App& app, Command& command);
void add_config(CLI::App& app, Command& command);
void add_schedule(CLI::App& app, Command& command);
void add_estimate(CLI::App& app, Command& command);
void add_plan(CLI::App& app, Command& command);
void add_env(CLI::App& app, Command& command);
void add_launch(CLI::App& app, Command& command);
void add_completion(CLI::App& app, Command& command);
void add_manual(CLI::App& app, Command& command);

}  // namespace tessera::app
