// SPDX-License-Identifier: Apache-2.0
// Copies of pieces that lie apart, on the CPU.
#include "tessera/kernels/copy_blocks.hpp"

#include <cstddef>
#include <cstring>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"

namespace tessera::kernels {
namespace {

void copy_blocks_cpu(const CopyBlocks& args) {
  const std::size_t element = size_of(args.dtype);
  const auto place = [element](auto* base, const BlockStrides& strides, std::int64_t block,
                               std::int64_t row) {
    return base + static_cast<std::size_t>(block * strides.block + row * strides.row) * element;
  };
  const std::size_t bytes = static_cast<std::size_t>(args.count) * element;
  parallel_rows(args.blocks * args.rows, args.count, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t block = i / args.rows, row = i % args.rows;
      std::memcpy(
          place(static_cast<std::byte*>(args.target), args.target_strides, block, row),
          place(static_cast<const std::byte*>(args.source), args.source_strides, block, row),
          bytes);
    }
  });
}

}  // namespace

void copy_blocks(const Stream& stream, const CopyBlocks& args) {
  if (args.blocks == 0 || args.rows == 0 || args.count == 0) return;
  if (!stream.device().is_cpu()) return cuda::copy_blocks(stream, args);
  copy_blocks_cpu(args);
}

}  // namespace tessera::kernels
