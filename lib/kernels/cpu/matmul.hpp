// SPDX-License-Identifier: Apache-2.0
// oneDNN's matrix product behind a cache of primitives.
#pragma once

#include "tessera/kernels/gemm.hpp"

namespace tessera::kernels::cpu {

/// True where oneDNN multiplies elements of this type with instructions made for it.
bool matmul_has(DType dtype);
/// As cpu::gemm with k positive and types that oneDNN has.
void matmul(const Gemm& args);

}  // namespace tessera::kernels::cpu
