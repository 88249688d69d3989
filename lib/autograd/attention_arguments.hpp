// SPDX-License-Identifier: Apache-2.0
// What all kinds of attention ask of the kernels alike.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tessera/autograd/attention.hpp"
#include "tessera/kernels/attention.hpp"

namespace tessera::autograd {

/// Where an element lies.
inline std::byte* at(const Tensor& tensor, std::int64_t element) {
  return tensor.as<std::byte>() + static_cast<std::size_t>(element) * size_of(tensor.dtype());
}

/// Of a head of qkv [..., columns]; 0 where the heads do not fit it.
inline std::int64_t head_dim_of(const Shape& qkv, const SelfAttention& options) {
  const bool grouped = options.heads > 0 && options.heads % options.key_heads() == 0;
  const std::int64_t parts = options.columns(1);
  return grouped && qkv.rank() == 3 && qkv[2] % parts == 0 ? qkv[2] / parts : 0;
}

/// What follows from the options alone; mask, lengths and arrays are the caller's.
inline kernels::AttentionForward arguments_of(const SelfAttention& options) {
  kernels::AttentionForward args{};
  args.heads = options.heads;
  args.kv_heads = options.key_heads();
  args.scale = options.scale;
  args.dropout = options.dropout.probability;
  args.dropout_seed = options.dropout.seed;
  args.dropout_stream = options.dropout.stream;
  args.batch_offset = options.batch_offset;
  args.variables = options.dropout.variables;
  args.head_offset = options.head_offset;
  args.all_heads = options.all_heads;
  return args;
}

}  // namespace tessera::autograd
