// SPDX-License-Identifier: Apache-2.0
// The command line of mpirun or srun that starts a job.
#pragma once

#include <string>
#include <vector>

#include "apps/tessera/launch/hosts.hpp"
#include "apps/tessera/launch/variables.hpp"

namespace tessera::app {

struct Job {
  Hosts hosts;    ///< empty: Slurm decides, from `nodes` and `ranks_per_node`
  int nodes = 0;  ///< only without hosts; 0: not said
  int ranks_per_node = 0;
  Variables variables;                ///< to set for the ranks
  std::vector<std::string> exported;  ///< names of this process's variables for the ranks
  std::vector<std::string> launcher_arguments;
  std::vector<std::string> program;
};

struct CommandLine {
  Variables variables;  ///< to set for the launcher itself
  std::vector<std::string> words;
};

/// Open MPI's. Hosts whose slots do not count from 0 get a part of their own, where
/// CUDA_VISIBLE_DEVICES names their slots. `mpirun` is the program's name.
CommandLine mpirun_command(const Job& job, const std::string& mpirun);

/// Errors: not_supported when the hosts differ in their slots other than as the allocation does
/// (`allocation`; empty outside of one), which a step of Slurm cannot express.
CommandLine srun_command(const Job& job, const Hosts& allocation);

/// As one would type it into a shell.
std::string to_text(const CommandLine& command);

}  // namespace tessera::app
