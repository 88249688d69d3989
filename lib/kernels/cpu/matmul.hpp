// SPDX-License-Identifier: Apache-2.0
// oneDNN's matrix product behind a cache of primitives.
#pragma once

#include "tessera/kernels/gemm.hpp"

namespace tessera::kernels::cpu {

/// True where oneDNN multiplies bf16 with bf16 instructions.
bool matmul_has_bf16();
/// As cpu::gemm with k positive and types that oneDNN has.
void matmul(const Gemm& args);

}  // namespace tessera::kernels::cpu
