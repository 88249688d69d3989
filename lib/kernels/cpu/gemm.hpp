// SPDX-License-Identifier: Apache-2.0
// The CPU's matrix product.
#pragma once

#include "tessera/kernels/gemm.hpp"

namespace tessera::kernels::cpu {

/// Arguments are checked, lda, ldb and ldc set, m and n positive. FLOPs are counted by the caller.
void gemm(const Gemm& args);

}  // namespace tessera::kernels::cpu
