// SPDX-License-Identifier: Apache-2.0
// Reading the run file that a subcommand was given.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tessera/comm/runtime.hpp"
#include "tessera/config/reader.hpp"

namespace CLI {
class App;
}

namespace tessera::app {

struct RunFileArguments {
  std::string file;
  std::vector<std::string> set;
};

/// Declares RUN.yaml and --set.
void add_run_file(CLI::App& sub, RunFileArguments& arguments);

/// Declares --ranks N, for a subcommand that only looks; 0 where it is not given.
void add_ranks(CLI::App& sub, int& ranks, const std::string& purpose);

/// `asked`, else as many as the launcher started, else the fewest that the run file is for.
int ranks_to_look_at(int asked, const config::RunConfig& config);

/// Reads the run file on every rank and checks that all ranks read the same. `options.set` is taken
/// from the arguments. Collective over runtime.world().
config::RunConfig read_on_all_ranks(Runtime& runtime, const RunFileArguments& arguments,
                                    config::ReadOptions options = {});

/// Ranks read the run file, then `body` runs on a Runtime as the file's comm section says. Returns
/// the exit code.
int on_configured_ranks(const RunFileArguments& arguments, const config::ReadOptions& options,
                        const std::function<void(Runtime&, config::RunConfig)>& body);

}  // namespace tessera::app
