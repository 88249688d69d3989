// SPDX-License-Identifier: Apache-2.0
// How many ranks the launcher says there are.
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "tessera/comm/runtime.hpp"

namespace tessera {
namespace {

int number_in(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return 0;
  int value = 0;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), value);
  return error == std::errc() && *end == '\0' ? value : 0;
}

/// Slurm sets SLURM_NTASKS in the batch shell too, where a program started by hand is alone by
/// right. Inside a step SLURM_STEP_NUM_TASKS counts the step's tasks; the batch and interactive
/// steps have one.
int slurm_step_size() {
  if (std::getenv("SLURM_PROCID") == nullptr) return 0;
  const int tasks = number_in("SLURM_STEP_NUM_TASKS");
  // mpirun inside an allocation starts its daemons by srun, and they hand that step's variables on
  // to the ranks; Open MPI's own variables count then.
  return tasks;
}

}  // namespace

int launcher_size() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"})
    if (const int size = number_in(variable); size > 0) return size;
  const int size = slurm_step_size();
  return size > 0 ? size : 1;
}

}  // namespace tessera
