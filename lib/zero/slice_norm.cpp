// SPDX-License-Identifier: Apache-2.0
// Block sums of the own slices.
#include "zero/slice_norm.hpp"

#include "tessera/base/shape.hpp"
#include "tessera/kernels/reduce.hpp"

namespace tessera::zero {

using kernels::kNormBlock;

SliceNorm::SliceNorm(const Context& context) : context_(context) {
  std::size_t blocks = 0;
  for (int u = 0; u < context.units(); ++u) {
    first_block_.push_back(blocks);
    blocks += static_cast<std::size_t>(ceil_divide(context.layout.slice_elements(u), kNormBlock));
  }
  first_block_.push_back(blocks);
  const std::size_t bytes = blocks * sizeof(double);
  blocks_ = allocate(bytes, context.device(), Purpose::workspace);
  if (blocks_) context.stream.fill_zero(blocks_.data(), bytes);
  if (!context.device().is_cpu()) host_ = allocate_pinned(bytes, Purpose::workspace);
}

void SliceNorm::record(int unit, std::int64_t begin, const void* gradient, DType dtype,
                       std::int64_t count) {
  if (count == 0) return;
  const std::size_t block =
      first_block_[static_cast<std::size_t>(unit)] + static_cast<std::size_t>(begin / kNormBlock);
  kernels::block_square_sums(context_.stream, gradient, dtype, count, blocks_.as<double>() + block);
}

double SliceNorm::sum() const {
  const Buffer& readable = host_ ? host_ : blocks_;
  if (host_) context_.stream.copy(host_.data(), blocks_.data(), blocks_.bytes());
  context_.stream.synchronize();
  const double* blocks = readable.as<double>();
  double total = 0;
  for (std::size_t u = 0; u + 1 < first_block_.size(); ++u) {
    double unit = 0;
    for (std::size_t b = first_block_[u]; b < first_block_[u + 1]; ++b) unit += blocks[b];
    total += unit;
  }
  return total;
}

}  // namespace tessera::zero
