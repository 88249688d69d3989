// SPDX-License-Identifier: Apache-2.0
// Self-attention on a fused projection, causal or of all positions, also of padded sequences.
#pragma once

#include <cstdint>

#include "tessera/autograd/dropout.hpp"
#include "tessera/autograd/tape.hpp"

namespace tessera::autograd {

struct SelfAttention {
  std::int64_t heads;
  std::int64_t kv_heads = 0;  // divide the heads (grouped-query attention); 0: as many
  float scale;
  bool causal = true;  // a position sees those before it and itself; else all
  // [batch] int32 on the projection's device, not changed before the backward pass: positions of
  // row b from lengths[b] on are padding, which nobody sees, and whose results and gradients are 0,
  // whatever lies there (kernels/attention.hpp). Without it all rows are whole.
  Tensor lengths{};
  DropoutSite dropout;  // of the probabilities; `offset` and `row_elements` are not used
  // For dropout: global index of the first batch row, and of the first head where `heads` are some
  // of the model's all_heads (0: they are all).
  std::int64_t batch_offset = 0;
  std::int64_t head_offset = 0, all_heads = 0;

  std::int64_t key_heads() const { return kv_heads > 0 ? kv_heads : heads; }
  /// Of q, k and v together.
  std::int64_t columns(std::int64_t head_dim) const { return (heads + 2 * key_heads()) * head_dim; }
};

/// qkv [batch, positions, (heads + 2 kv_heads) * head_dim], columns q, k, v -> [batch, positions,
/// heads * head_dim]. Saves qkv, the result and one number for each row and head. Errors:
/// invalid_argument where shapes do not fit.
Value self_attention(Tape& tape, const Value& qkv, const SelfAttention& options);

}  // namespace tessera::autograd
