// SPDX-License-Identifier: Apache-2.0
// Calls of attention that cuDNN takes: both masks, grouped queries, lengths that are no multiples
// of its tiles, queries at the end of the keys, gaps between rows.
#pragma once

#include "kernels/attention_case.hpp"

namespace tessera::testing::attention {

inline const Problem kCudnnCases[] = {
    {.batch = 2, .heads = 2, .kv_heads = 2, .queries = 64, .keys = 64, .head_dim = 32},
    {.batch = 1, .heads = 4, .kv_heads = 2, .queries = 128, .keys = 128, .head_dim = 64},
    {.batch = 2, .heads = 3, .kv_heads = 1, .queries = 65, .keys = 65, .head_dim = 40},
    {.batch = 2,
     .heads = 4,
     .kv_heads = 4,
     .queries = 17,
     .keys = 17,
     .head_dim = 128,
     .row_pad = 8,
     .batch_pad = 16},
    {.batch = 1, .heads = 4, .kv_heads = 1, .queries = 97, .keys = 131, .head_dim = 96},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 64, .keys = 128, .head_dim = 80},
    {.batch = 1,
     .heads = 6,
     .kv_heads = 2,
     .queries = 80,
     .keys = 33,
     .head_dim = 16,
     .causal = false},
    {.batch = 1,
     .heads = 2,
     .kv_heads = 2,
     .queries = 130,
     .keys = 130,
     .head_dim = 8,
     .causal = false},
    {.batch = 2, .heads = 1, .kv_heads = 1, .queries = 2, .keys = 3, .head_dim = 8},
};

}  // namespace tessera::testing::attention
