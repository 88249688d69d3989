// SPDX-License-Identifier: Apache-2.0
// The solver against an exact solution: a dam between deep and shallow water that breaks.
#pragma once

#include <mpi.h>

/// The order at which the error falls from 100 to 200 cells. Collective.
double dam_break_order(MPI_Comm communicator);
