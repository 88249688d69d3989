// SPDX-License-Identifier: Apache-2.0
// What one rank of a tensor-parallel group has of each layer of GPT-2.
#pragma once

#include "tessera/nn/models/gpt2.hpp"

namespace tessera::nn {

/// The share of a rank; sizes need not divide. Errors: invalid_config when the group has more
/// ranks than there are heads, inner columns or tokens, naming the sizes that would work.
Gpt2Shares gpt2_shares(const Gpt2Config& config, const TensorAxis& axis);

/// How attention works over the sequence axis. Errors: invalid_config where it cannot share every
/// tensor rank's heads, naming the sizes that would work.
SequenceAttention gpt2_sequence_attention(const Gpt2Config& config, const ModelOptions& options);

/// `shape` of which a rank has `kept` of the dimension; whole on an axis of one rank.
Partition split(const TensorAxis& axis, Shape shape, int dimension, std::vector<Interval> kept);

/// The columns of q, k and v that belong to the heads.
std::vector<Interval> qkv_columns(const Gpt2Config& config, const Interval& heads);

}  // namespace tessera::nn
