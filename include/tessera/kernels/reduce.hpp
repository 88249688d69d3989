// SPDX-License-Identifier: Apache-2.0
// Sums of squares and non-finite detection over flat arrays.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels {

/// Block length, in elements, of the global norm's partial sums: part of the definition of its bits
/// (doc/numerics.md).
inline constexpr std::int64_t kNormBlock = 1024;

/// sums[i] = sum of squares, in fp64, of block i of x (the last may be short). Defined to the bit,
/// whatever the device or instruction set: lane l = 0 … 7 starts at 0 and adds the squares of the
/// block's elements l, l + 8, l + 16, … one after the other (a square of fp32 is exact in fp64);
/// then ((lane 0 + lane 1) + lane 2) + …. A non-finite element makes its block's sum non-finite.
/// sums has ceil(count / kNormBlock) entries.
void block_square_sums(const Stream& stream, const void* x, DType dtype, std::int64_t count,
                       double* sums);
/// Index of the first NaN or infinity, or -1. Waits for the stream.
std::int64_t first_non_finite(const Stream& stream, const void* x, DType dtype, std::int64_t count);

}  // namespace tessera::kernels
