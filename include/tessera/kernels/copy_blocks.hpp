// SPDX-License-Identifier: Apache-2.0
// Copies of pieces that lie apart.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels {

/// Where row r of block b begins: element b * block + r * row.
struct BlockStrides {
  std::int64_t block = 0;
  std::int64_t row = 0;
};

/// Copies `blocks` x `rows` runs of `count` neighbouring elements, the bits as they are. Source and
/// target do not overlap.
struct CopyBlocks {
  const void* source;
  void* target;
  std::int64_t blocks, rows, count;
  BlockStrides source_strides, target_strides;
  DType dtype;
};
void copy_blocks(const Stream& stream, const CopyBlocks& args);

}  // namespace tessera::kernels
