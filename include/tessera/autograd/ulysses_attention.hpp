// SPDX-License-Identifier: Apache-2.0
// Attention over shared sequences, each rank with some of the heads (DeepSpeed-Ulysses, Jacobs et
// al. 2023).
#pragma once

#include <memory>

#include "tessera/autograd/attention.hpp"
#include "tessera/autograd/sequence_shards.hpp"

namespace tessera::autograd {

/// self_attention() of rows that the ranks of a group share: qkv and result are of the own
/// tokens. Ranks exchange their tokens' part of all heads for all tokens' part of some heads, and
/// back; the first kv_heads % ranks ranks have one key head more, each with its query heads.
/// `options` are those of the whole rows. Collective, also in the backward pass. Errors:
/// invalid_argument if there are fewer key heads than ranks, or the tokens are not the shards'.
Value ulysses_attention(Tape& tape, const Value& qkv, const SelfAttention& options,
                        const std::shared_ptr<const SequenceShards>& shards);

}  // namespace tessera::autograd
