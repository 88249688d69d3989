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
  explicit SliceNorm(const Context& context);
  /// Elements [begin, begin + count) of the own slice; begin is a multiple of the block length, and
  /// so is count except at the slice's end.
  void record(int unit, std::int64_t begin, const void* gradient, DType dtype, std::int64_t count);
  /// Sum over everything recorded last. Waits for the stream.
  double sum() const;

 private:
  Context context_;
  std::vector<std::size_t> first_block_;  // of each unit, and the end
  Buffer blocks_;                         // fp64, on the device
  Buffer host_;                           // where blocks_ are read, if not in place
};

}  // namespace tessera::zero
