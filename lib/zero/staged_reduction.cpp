// SPDX-License-Identifier: Apache-2.0
// Packing, reducing and unpacking of buckets.
#include "zero/staged_reduction.hpp"

#include "tessera/kernels/elementwise.hpp"

namespace tessera::zero {

void hold_reduced(const Context& context, const void* reduced, std::int64_t count,
                  const Held& held) {
  const DType sent = context.sent_type();
  if (held.adds)
    kernels::accumulate(context.stream, reduced, sent, 1, held.data, held.type, count);
  else
    kernels::cast(context.stream, reduced, sent, held.data, held.type, count);
}

Work StagedReduction::start(const Bucket& bucket, int slot) {
  staging_.for_each_piece(bucket, slot, [&](const BucketPart& part, Range range, int, void* piece) {
    arrays_.read(part.unit, range, piece);
  });
  if (!context_.holds_whole_states()) return start_scatter(bucket, slot);
  return context_.group.all_reduce(staging_.data(slot), bucket.elements * context_.ranks(),
                                   context_.sent_type(), context_.options.reduction,
                                   context_.stream);
}

Work StagedReduction::start_scatter(const Bucket& bucket, int slot) {
  std::vector<ScatterPart> parts;
  const void* first = nullptr;
  staging_.for_each_piece(bucket, slot, [&](const BucketPart& part, Range, int rank, void* piece) {
    if (rank == 0) first = piece;
    if (rank == context_.rank()) parts.push_back({first, part.count, piece, part.count});
  });
  return context_.group.reduce_scatter(parts, context_.sent_type(), context_.options.reduction,
                                       context_.stream);
}

void StagedReduction::complete(const Bucket& bucket, int slot) {
  staging_.for_each_piece(bucket, slot,
                          [&](const BucketPart& part, Range range, int rank, const void* piece) {
                            if (rank == context_.rank() || context_.holds_whole_states())
                              arrays_.write(part.unit, range, piece);
                          });
}

}  // namespace tessera::zero
