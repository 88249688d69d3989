// SPDX-License-Identifier: Apache-2.0
#include "nn/models/decoder_shares.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::nn {
namespace {

// Vectors of 16-bit elements stay aligned where the size allows it.
constexpr std::int64_t kColumns = 32;

Interval share_of_columns(std::int64_t columns, const TensorAxis& axis) {
  if (columns % kColumns != 0 || columns < kColumns * axis.size)
    return balanced_share(columns, axis.size, axis.rank);
  const Interval groups = balanced_share(columns / kColumns, axis.size, axis.rank);
  return {groups.begin * kColumns, groups.end * kColumns};
}

void check_share(const char* key, std::int64_t size, const TensorAxis& axis) {
  TESSERA_CHECK(axis.size <= size, Code::invalid_config,
                fmt::format("mesh.tensor is {} but model.{} is {}: every rank needs at least one; "
                            "a tensor axis of 1 to {} works",
                            axis.size, key, size, size));
}

/// Whole groups of query heads with their key and value head; or, where ranks are more than those,
/// some heads of one group. Either way a rank's groups are equally large.
void share_heads(DecoderShares& shares, const DecoderSizes& sizes, const TensorAxis& axis) {
  const std::int64_t group = sizes.heads / sizes.kv_heads;
  if (axis.size <= sizes.kv_heads) {
    shares.kv_heads = balanced_share(sizes.kv_heads, axis.size, axis.rank);
    shares.heads = {shares.kv_heads.begin * group, shares.kv_heads.end * group};
    shares.kv_holders = {axis.rank, axis.rank + 1};
    return;
  }
  std::int64_t head = 0;
  while (balanced_share(axis.size, static_cast<int>(sizes.kv_heads), static_cast<int>(head)).end <=
         axis.rank)
    ++head;
  shares.kv_holders =
      balanced_share(axis.size, static_cast<int>(sizes.kv_heads), static_cast<int>(head));
  const Interval own = balanced_share(group, static_cast<int>(shares.kv_holders.size()),
                                      static_cast<int>(axis.rank - shares.kv_holders.begin));
  shares.kv_heads = {head, head + 1};
  shares.heads = {head * group + own.begin, head * group + own.end};
}

}  // namespace

DecoderShares decoder_shares(const DecoderSizes& sizes, const TensorAxis& axis) {
  check_share(sizes.heads_key, sizes.heads, axis);
  check_share(sizes.inner_key, sizes.inner, axis);
  check_share("vocab_size", sizes.vocabulary, axis);
  DecoderShares shares;
  share_heads(shares, sizes, axis);
  shares.inner = share_of_columns(sizes.inner, axis);
  shares.vocabulary = share_of_columns(sizes.vocabulary, axis);
  return shares;
}

SequenceAttention decoder_sequence_attention(const DecoderSizes& sizes,
                                             const ModelOptions& options) {
  const SequenceAxis& axis = options.sequence;
  const std::int64_t fewest = std::max<std::int64_t>(sizes.kv_heads / options.tensor.size, 1);
  const SequenceAttention attention =
      choose_attention(axis.attention, axis.size,
                       std::max<std::int64_t>(sizes.heads / options.tensor.size, 1), fewest);
  TESSERA_CHECK(
      attention == SequenceAttention::ring || axis.size <= fewest, Code::invalid_config,
      fmt::format("mesh.sequence is {} but model.{} is {}{}: with sequence_attention ulysses "
                  "ranks share the heads, at least one each; a sequence axis of 1 to {} works, or "
                  "mesh.sequence_attention ring",
                  axis.size, sizes.kv_heads_key, sizes.kv_heads,
                  options.tensor.size > 1
                      ? fmt::format(", {} on a rank of mesh.tensor {}", fewest, options.tensor.size)
                      : "",
                  fewest));
  return attention;
}

Partition split(const TensorAxis& axis, Shape shape, int dimension, std::vector<Interval> kept) {
  if (axis.size == 1) return Partition(std::move(shape));
  return Partition(std::move(shape), dimension, std::move(kept));
}

Interval elements_of_heads(const DecoderSizes& sizes, const Interval& heads) {
  return {heads.begin * sizes.head_dim, heads.end * sizes.head_dim};
}

}  // namespace tessera::nn
