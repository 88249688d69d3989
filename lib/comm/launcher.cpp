// SPDX-License-Identifier: Apache-2.0
// How many ranks the launcher says there are.
#include "comm/launcher.hpp"

#include <charconv>
#include <cstdlib>
#include <cstring>

#include <fmt/format.h>

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

// What mpirun, and srun with any kind of PMI, set for MPI to read.
bool has_process_manager() {
  for (const char* variable :
       {"PMIX_NAMESPACE", "PMIX_RANK", "PMI_RANK", "PMI_FD", "PMI_JOBID", "OMPI_COMM_WORLD_SIZE"})
    if (std::getenv(variable) != nullptr) return true;
  return false;
}

}  // namespace

std::string comm::missing_pmi_warning() {
  const int tasks = slurm_step_size();
  if (tasks <= 1 || number_in("SLURM_PROCID") != 0 || has_process_manager()) return "";
  return fmt::format(
      "srun started {} tasks without PMI, so MPI may not find them: if it fails below, start with "
      "`srun --mpi=pmix` (`srun --mpi=list` shows what this cluster has)",
      tasks);
}

int launcher_size() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"})
    if (const int size = number_in(variable); size > 0) return size;
  const int size = slurm_step_size();
  return size > 0 ? size : 1;
}

}  // namespace tessera
