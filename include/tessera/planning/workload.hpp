// SPDX-License-Identifier: Apache-2.0
// What a step of training computes, as numbers.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"

namespace tessera::planning {

/// A transformer of equal layers. As it stands one like GPT-2: as many heads of keys and values,
/// two projections of the width `inner`, biases and LayerNorms with theirs, a head tied to the
/// table.
struct TransformerShape {
  std::int64_t layers = 0;
  std::int64_t hidden = 0;
  std::int64_t heads = 0;
  std::int64_t inner = 0;
  std::int64_t vocabulary = 0;
  std::int64_t positions = 0;  ///< rows of the position embedding; 0: none
  std::int64_t kv_heads = 0;   ///< 0: as many as heads
  std::int64_t head_dim = 0;   ///< 0: hidden / heads
  bool gated = false;          ///< three projections of the width `inner`
  bool biased = true;          ///< without biases norms are RMSNorms
  bool tied = true;            ///< the head multiplies with the embedding's table

  std::int64_t key_heads() const { return kv_heads > 0 ? kv_heads : heads; }
  std::int64_t head_size() const { return head_dim > 0 ? head_dim : hidden / heads; }
  std::int64_t query_width() const { return heads * head_size(); }
  std::int64_t key_width() const { return key_heads() * head_size(); }
  std::int64_t projections() const { return gated ? 3 : 2; }
  /// Elements of a norm.
  std::int64_t norm_parameters() const { return (biased ? 2 : 1) * hidden; }
  std::int64_t layer_parameters() const;
  /// Token and position embedding.
  std::int64_t embedding_parameters() const;
  /// Everything, with the last norm, and the head unless it is tied.
  std::int64_t parameters() const;
  /// FLOPs of a layer's forward for `rows` sequences of `length` tokens, attention counted whole
  /// (Narayanan et al., arXiv:2104.04473): 24 rows length hidden^2 (1 + length / 6 hidden) where
  /// inner is 4 hidden.
  double layer_flops(double rows, double length) const;
  /// FLOPs of the head's forward.
  double head_flops(double rows, double length) const;
};

struct Workload {
  TransformerShape model;
  std::int64_t batch = 0;   ///< sequences of an optimizer step, over all ranks
  std::int64_t length = 0;  ///< tokens of a sequence
  DType dtype = DType::bf16;
  DType accumulation_dtype = DType::fp32;  ///< of gradients over several micro-batches
  int states = 2;                          ///< fp32 arrays of the optimizer: 2 for Adam
  bool dropout = false;                    ///< of the residual stream
  bool partition_activations = false;      ///< as in nn::ModelOptions
  bool host_activations = false;           ///< the same
  /// Attention that never writes its scores; without it they are read and written, and selective
  /// recomputation is that of attention, as in Korthikanti et al. (arXiv:2205.05198).
  bool fused_attention = true;

  double tokens() const { return static_cast<double>(batch) * static_cast<double>(length); }
  /// Forward and backward of the whole step, without recomputation.
  double model_flops() const;
};

}  // namespace tessera::planning
