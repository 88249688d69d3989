// SPDX-License-Identifier: Apache-2.0
// What one rank of a tensor-parallel group has of each layer of a decoder.
#pragma once

#include "tessera/nn/models/decoder.hpp"

namespace tessera::nn {

/// The share of a rank; sizes need not divide. Errors: invalid_config when the group has more
/// ranks than there are heads, inner columns or tokens, naming the sizes that would work.
DecoderShares decoder_shares(const DecoderSizes& sizes, const TensorAxis& axis);

/// How attention works over the sequence axis. Errors: invalid_config where it cannot share every
/// tensor rank's heads, naming the sizes that would work.
SequenceAttention decoder_sequence_attention(const DecoderSizes& sizes,
                                             const ModelOptions& options);

/// `shape` of which a rank has `kept` of the dimension; whole on an axis of one rank.
Partition split(const TensorAxis& axis, Shape shape, int dimension, std::vector<Interval> kept);

/// The elements of heads that lie one after the other.
Interval elements_of_heads(const DecoderSizes& sizes, const Interval& heads);

}  // namespace tessera::nn
