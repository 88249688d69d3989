// SPDX-License-Identifier: Apache-2.0
// Copies of pieces that lie apart, on a GPU: one launch.
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/pack.cuh"

namespace tessera::kernels::cuda {
namespace {

/// Elements are counted as if the pieces lay one after the other.
template <typename T>
struct BlockCopy {
  static constexpr int kWidth = kPackWidth<T>;
  const T* source;
  T* target;
  std::int64_t rows, count;
  BlockStrides from, to;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    const std::int64_t piece = i / count, column = i - piece * count;
    const std::int64_t block = piece / rows, row = piece - block * rows;
    const auto elements = load<N>(source + block * from.block + row * from.row + column);
    store(target + block * to.block + row * to.row + column, elements);
  }
};

template <int N>
bool all_multiples(const CopyBlocks& args) {
  for (const std::int64_t stride : {args.count, args.source_strides.block, args.source_strides.row,
                                    args.target_strides.block, args.target_strides.row})
    if (stride % N != 0) return false;
  return true;
}

template <typename T>
void launch_copy(const Stream& stream, const CopyBlocks& args) {
  const BlockCopy<T> op{.source = static_cast<const T*>(args.source),
                        .target = static_cast<T*>(args.target),
                        .rows = args.rows,
                        .count = args.count,
                        .from = args.source_strides,
                        .to = args.target_strides};
  const bool wide = all_multiples<op.kWidth>(args) && all_aligned<op.kWidth>(op.source, op.target);
  launch_elementwise(stream, op, args.blocks * args.rows * args.count, wide);
}

}  // namespace

// By size alone: nothing is computed.
void copy_blocks(const Stream& stream, const CopyBlocks& args) {
  switch (size_of(args.dtype)) {
    case 8:
      return launch_copy<double>(stream, args);
    case 4:
      return launch_copy<float>(stream, args);
    case 2:
      return launch_copy<bf16>(stream, args);
    default:
      fail(Code::not_supported,
           std::string("copy_blocks on a GPU takes elements of 2, 4 or 8 bytes, not ") +
               to_string(args.dtype));
  }
}

}  // namespace tessera::kernels::cuda
