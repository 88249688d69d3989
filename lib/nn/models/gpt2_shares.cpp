// SPDX-License-Identifier: Apache-2.0
#include "nn/models/gpt2_shares.hpp"

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

}  // namespace

Gpt2Shares gpt2_shares(const Gpt2Config& config, const TensorAxis& axis) {
  check_share("n_head", config.n_head, axis);
  check_share("n_inner", config.inner(), axis);
  check_share("vocab_size", config.vocab_size, axis);
  return {balanced_share(config.n_head, axis.size, axis.rank),
          share_of_columns(config.inner(), axis), share_of_columns(config.vocab_size, axis)};
}

SequenceAttention gpt2_sequence_attention(const Gpt2Config& config, const ModelOptions& options) {
  const SequenceAxis& axis = options.sequence;
  const std::int64_t fewest = config.n_head / options.tensor.size;
  const SequenceAttention attention = choose_attention(axis.attention, axis.size, fewest, fewest);
  TESSERA_CHECK(
      attention == SequenceAttention::ring || axis.size <= fewest, Code::invalid_config,
      fmt::format("mesh.sequence is {} but model.n_head is {}{}: with sequence_attention ulysses "
                  "ranks share the heads, at least one each; a sequence axis of 1 to {} works, or "
                  "mesh.sequence_attention ring",
                  axis.size, config.n_head,
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

std::vector<Interval> qkv_columns(const Gpt2Config& config, const Interval& heads) {
  std::vector<Interval> columns;
  for (std::int64_t part = 0; part < 3; ++part)
    columns.push_back({part * config.n_embd + heads.begin * config.head_dim(),
                       part * config.n_embd + heads.end * config.head_dim()});
  return columns;
}

}  // namespace tessera::nn
