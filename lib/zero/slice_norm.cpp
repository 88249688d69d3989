// SPDX-License-Identifier: Apache-2.0
// Block sums of the own slices.
#include "zero/slice_norm.hpp"

#include <algorithm>

#include "tessera/base/shape.hpp"
#include "tessera/kernels/reduce.hpp"
#include "tessera/kernels/step_decision.hpp"

namespace tessera::zero {

using kernels::kNormBlock;

SliceNorm::SliceNorm(const Context& context, const std::vector<std::int64_t>& counted)
    : context_(context) {
  std::int64_t blocks = 0;
  for (int u = 0; u < context.units(); ++u) {
    const Range whole{0, counted[static_cast<std::size_t>(u)]};
    counted_.push_back(intersect(whole, context.layout.slice(u, context.rank())).count);
    first_block_.push_back(blocks);
    blocks += ceil_divide(context.layout.slice_elements(u), kNormBlock);
  }
  first_block_.push_back(blocks);
  blocks_ = allocate(bytes_of(blocks, DType::fp64), context.device(), Purpose::workspace);
  if (blocks_) context.stream.fill_zero(blocks_.data(), blocks_.bytes());
  units_ = allocate(bytes_of(context.units(), DType::fp64), context.device(), Purpose::workspace);
  const std::size_t bytes = first_block_.size() * sizeof(std::int64_t);
  first_blocks_ = allocate(bytes, context.device(), Purpose::workspace);
  context.stream.copy(first_blocks_.data(), first_block_.data(), bytes);
}

void SliceNorm::record(int unit, std::int64_t begin, const void* gradient, DType dtype,
                       std::int64_t count) {
  count = std::min(count, counted_[static_cast<std::size_t>(unit)] - begin);
  if (count <= 0) return;
  const std::int64_t block = first_block_[static_cast<std::size_t>(unit)] + begin / kNormBlock;
  kernels::block_square_sums(context_.stream, gradient, dtype, count, blocks_.as<double>() + block);
}

void SliceNorm::total(double* target) const {
  kernels::block_total(context_.stream, {.blocks = blocks_.as<double>(),
                                         .first = first_blocks_.as<std::int64_t>(),
                                         .groups = context_.units(),
                                         .group_sums = units_.as<double>(),
                                         .total = target});
}

}  // namespace tessera::zero
