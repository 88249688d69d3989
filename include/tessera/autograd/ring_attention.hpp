// SPDX-License-Identifier: Apache-2.0
// Attention over shared sequences, where keys and values travel around a ring (Liu et al. 2023).
#pragma once

#include <memory>

#include "tessera/autograd/attention.hpp"
#include "tessera/autograd/sequence_shards.hpp"

namespace tessera::autograd {

/// self_attention() of rows that the ranks of a group share: qkv and result are of the own
/// tokens. Queries stay; the keys and values of each rank pass by all others,
/// while they compute with those of the rank before, and in the backward pass once more, with their
/// gradients behind them. A query sees what lies before it, so shards that take a piece from the
/// beginning and one from the end of a row give all ranks the same work. `options` are those of the
/// whole rows. Saves qkv, the result and one number for each row and head. Collective, also in the
/// backward pass. Errors: invalid_argument if the tokens are not the shards'.
Value ring_attention(Tape& tape, const Value& qkv, const SelfAttention& options,
                     const std::shared_ptr<const SequenceShards>& shards);

}  // namespace tessera::autograd
