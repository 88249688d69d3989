// SPDX-License-Identifier: Apache-2.0
// What the launcher's environment tells before MPI is up.
#pragma once

#include <string>

namespace tessera::comm {

/// Why MPI will probably not start, or start alone: this is a task of several that srun gave no way
/// to find each other. To be said by the first task before MPI_Init, which ends the process with
/// words that lead elsewhere. Empty when all is well.
std::string missing_pmi_warning();

}  // namespace tessera::comm
