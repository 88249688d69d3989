// SPDX-License-Identifier: Apache-2.0
// What every subcommand shares: the process environment, running on all ranks, and errors as one
// message and an exit code.
#pragma once

#include <functional>
#include <string>

#include "tessera/comm/runtime.hpp"

#include "apps/tessera/subcommands.hpp"

namespace CLI {
class App;
class Error;
}  // namespace CLI

namespace tessera::app {

inline constexpr int kBadInput = 2;
inline constexpr int kFailure = 1;

/// Sets what Open MPI reads at start-up and a user should not have to know: idle ranks yield, root
/// may run.
void prepare_environment();

std::string version_text();

/// Prints help or a usage error on one rank; the exit code.
int report_usage(const CLI::App& app, const CLI::Error& error);

/// Runs the command; what it throws becomes one message on standard error and an exit code.
int run(const Command& command);

/// To be called last: `code`, or that of a failure, told on standard error, where what a command
/// printed did not reach standard output (a full disk).
int check_output(int code);

/// Rank as the launcher's environment says, before MPI is up; 0 without a launcher.
int launcher_rank();

/// Runs `body` on every rank of a Runtime. An error that all ranks share is printed by the first;
/// one that a rank sees alone is printed by that rank, which then ends the job. Returns the exit
/// code.
int on_all_ranks(const CommOptions& options, const std::function<void(Runtime&)>& body);

/// Threads for this rank: `requested`, or the node's cores divided among its ranks when 0. Warns
/// when the rank is bound to fewer cores than threads. Collective.
int choose_threads(Runtime& runtime, int requested);

}  // namespace tessera::app
