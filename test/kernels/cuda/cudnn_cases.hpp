// SPDX-License-Identifier: Apache-2.0
// Calls of attention that cuDNN takes: both masks, grouped queries, lengths that are no multiples
// of its tiles, queries at the end of the keys, gaps between rows, rows of different lengths.
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
    // Rows of different lengths, with either mask; of one head and of groups.
    {.batch = 4,
     .heads = 2,
     .kv_heads = 2,
     .queries = 64,
     .keys = 64,
     .head_dim = 32,
     .lengths = {64, 0, 1, 37}},
    {.batch = 3,
     .heads = 2,
     .kv_heads = 2,
     .queries = 128,
     .keys = 128,
     .head_dim = 64,
     .causal = false,
     .lengths = {1, 128, 65}},
    {.batch = 2,
     .heads = 4,
     .kv_heads = 2,
     .queries = 70,
     .keys = 70,
     .head_dim = 40,
     .row_pad = 8,
     .batch_pad = 16,
     .lengths = {69, 3}},
    {.batch = 2,
     .heads = 6,
     .kv_heads = 2,
     .queries = 65,
     .keys = 65,
     .head_dim = 16,
     .causal = false,
     .lengths = {0, 64}},
};

}  // namespace tessera::testing::attention
