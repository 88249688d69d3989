// SPDX-License-Identifier: Apache-2.0
// This rank's part of the global gradient norm.
#pragma once

#include <cstdint>
#include <vector>

#include "zero/context.hpp"

namespace tessera::zero {

/// Sums of squares of the own slices, in fp64 by blocks of kernels::kNormBlock elements from each
/// slice's start. They come in any order and are added by block, then unit.
class SliceNorm {
 public:
  /// Of each unit only the first `counted` elements belong to the norm.
  SliceNorm(const Context& context, const std::vector<std::int64_t>& counted);
  /// Elements [begin, begin + count) of the own slice; begin is a multiple of the block length, and
  /// so is count except at the slice's end.
  void record(int unit, std::int64_t begin, const void* gradient, DType dtype, std::int64_t count);
  /// Enqueues the sum over everything recorded last, into memory of the device.
  void total(double* target) const;

 private:
  Context context_;
  std::vector<std::int64_t> counted_;      // elements of the own slice, by unit
  std::vector<std::int64_t> first_block_;  // of each unit, and the end
  // On the device:
  Buffer blocks_;        // fp64
  Buffer units_;         // fp64
  Buffer first_blocks_;  // first_block_
};

}  // namespace tessera::zero
