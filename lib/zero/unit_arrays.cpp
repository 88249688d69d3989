// SPDX-License-Identifier: Apache-2.0
// Reading and writing ranges of units.
#include "zero/unit_arrays.hpp"

#include <algorithm>

namespace tessera::zero {

void* LentArrays::at(const FlatPiece& piece) const {
  const ParamView& view = views_[static_cast<std::size_t>(piece.parameter)];
  if (side_ == Side::data) return element(view.data, piece.begin, view.dtype);
  if (!view.options.trainable) return nullptr;
  return element(view.gradient, piece.begin, view.dtype);
}

void LentArrays::read(int unit, Range range, void* target) const {
  const DType dtype = context_.dtype();
  std::int64_t filled = range.begin;
  for (const FlatPiece& piece : context_.layout.pieces(unit, range)) {
    void* to = element(target, piece.unit_begin - range.begin, dtype);
    if (const void* from = at(piece))
      context_.stream.copy(to, from, bytes_of(piece.count, dtype));
    else
      context_.stream.fill_zero(to, bytes_of(piece.count, dtype));
    filled = piece.unit_begin + piece.count;
  }
  context_.stream.fill_zero(element(target, filled - range.begin, dtype),
                            bytes_of(range.end() - filled, dtype));
}

void LentArrays::write(int unit, Range range, const void* source) {
  const DType dtype = context_.dtype();
  for (const FlatPiece& piece : context_.layout.pieces(unit, range))
    if (void* to = at(piece))
      context_.stream.copy(to, element(source, piece.unit_begin - range.begin, dtype),
                           bytes_of(piece.count, dtype));
}

Staging::Staging(const Context& context, const std::vector<Bucket>& plan, int slots, DType type)
    : context_(context), type_(type) {
  const std::int64_t most = largest_bucket(plan);
  const auto wanted = std::min(static_cast<std::size_t>(slots), plan.size());
  for (std::size_t i = 0; i < wanted; ++i)
    buffers_.push_back(
        context.allocate_shared(bytes_of(most * context.ranks(), type), Purpose::buckets));
}

void* Staging::data(int slot) const {
  return buffers_[static_cast<std::size_t>(slot)].data();
}

}  // namespace tessera::zero
