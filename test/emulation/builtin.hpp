// SPDX-License-Identifier: Apache-2.0
// The built-in variables as the executor writes them. Kernels see them as constants (language.hpp),
// which they are as long as one thread runs; so no file includes both.
#pragma once

#include <vector_types.h>

extern "C" {
extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
}
