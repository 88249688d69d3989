// SPDX-License-Identifier: Apache-2.0
// Packing, reducing and unpacking of buckets.
#include "zero/staged_reduction.hpp"

namespace tessera::zero {

Work StagedReduction::start(const Bucket& bucket, int slot) {
  staging_.for_each_piece(bucket, slot, [&](const BucketPart& part, Range range, int, void* piece) {
    arrays_.read(part.unit, range, piece);
  });
  if (!context_.holds_whole_states()) return start_scatter(bucket, slot);
  return context_.group.all_reduce(staging_.data(slot), bucket.elements * context_.ranks(),
                                   context_.dtype(), context_.options.reduction, context_.stream);
}

Work StagedReduction::start_scatter(const Bucket& bucket, int slot) {
  std::vector<ScatterPart> parts;
  const void* first = nullptr;
  staging_.for_each_piece(bucket, slot, [&](const BucketPart& part, Range, int rank, void* piece) {
    if (rank == 0) first = piece;
    if (rank == context_.rank()) parts.push_back({first, part.count, piece, part.count});
  });
  return context_.group.reduce_scatter(parts, context_.dtype(), context_.options.reduction,
                                       context_.stream);
}

void StagedReduction::complete(const Bucket& bucket, int slot) {
  staging_.for_each_piece(
      bucket, slot, [&](const BucketPart& part, Range range, int rank, const void* piece) {
        const bool own = rank == context_.rank();
        if (own) norm_.record(part.unit, part.begin, piece, context_.dtype(), part.count);
        if (own || context_.holds_whole_states()) arrays_.write(part.unit, range, piece);
      });
}

}  // namespace tessera::zero
