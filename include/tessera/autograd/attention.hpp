// SPDX-License-Identifier: Apache-2.0
// Causal self-attention on a fused projection.
#pragma once

#include <cstdint>

#include "tessera/autograd/dropout.hpp"
#include "tessera/autograd/tape.hpp"

namespace tessera::autograd {

struct SelfAttention {
  std::int64_t heads;
  float scale;
  DropoutSite dropout;  // of the probabilities; `offset` and `row_elements` are not used
  // For dropout: global index of the first batch row, and of the first head where `heads` are some
  // of the model's all_heads (0: they are all).
  std::int64_t batch_offset = 0;
  std::int64_t head_offset = 0, all_heads = 0;
};

/// qkv [batch, positions, 3 * width], columns q, k, v -> [batch, positions, width]. Saves qkv, the
/// result and one number for each row and head.
Value self_attention(Tape& tape, const Value& qkv, const SelfAttention& options);

}  // namespace tessera::autograd
