// SPDX-License-Identifier: Apache-2.0
// What the processor can do and how many cores this process may use.
#pragma once

#include <string>

namespace tessera {

/// Name of the widest instruction set that our own loops use here: "avx512", "avx2", "neon", …
std::string simd_name();
/// True where the processor has bf16 dot products (AVX-512 BF16, AMX, Arm BF16).
bool has_bf16_instructions();
/// Cores this process may run on (its affinity mask, and the container's quota), at least 1.
int available_cores();
/// Cores of this machine or container, whatever this process is bound to, at least 1.
int node_cores();
/// Threads of OpenMP regions of this process from now on, at least 1.
void set_threads(int threads);
int threads();
std::string cpu_model_name();

}  // namespace tessera
