// SPDX-License-Identifier: Apache-2.0
// Attention over keys that come in parts.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels {

/// Adds what attention found for some more keys to what it found before: both results become parts
/// of one softmax, by their log-sum-exps (the merge of online softmax, Milakov and Gimelshein
/// 2018). A `sum` and `lse` of nothing yet are overwritten with `first`.
struct AttentionMerge {
  const void* part;       // [batch, queries, heads, head_dim], as attention_forward writes it
  const float* part_lse;  // [batch, heads, queries]
  float* sum;             // as part, in fp32
  float* lse;             // as part_lse
  bool first;
  std::int64_t batch, queries, heads, head_dim;
  DType dtype;  // of part
};
void attention_merge(const Stream& stream, const AttentionMerge& args);

}  // namespace tessera::kernels
