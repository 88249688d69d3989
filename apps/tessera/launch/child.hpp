// SPDX-License-Identifier: Apache-2.0
// Running mpirun or srun as a child, with signals as a job's ranks should see them.
#pragma once

#include "apps/tessera/launch/command.hpp"

namespace tessera::app {

/// Runs the command to its end; its exit code, or 128 + the signal that ended it. SIGTERM becomes
/// SIGUSR1 for the child, which passes that on to the ranks: they save and end. The second SIGTERM,
/// five seconds or more after the first, is passed on as it is. Errors: io when there is no such
/// program.
int run_child(const CommandLine& command);

}  // namespace tessera::app
