// SPDX-License-Identifier: Apache-2.0
// What a step of training computes, as numbers.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"

namespace tessera::planning {

/// A GPT-2-like transformer: every layer has attention of `heads` heads and two projections of the
/// width `inner`.
struct TransformerShape {
  std::int64_t layers = 0;
  std::int64_t hidden = 0;
  std::int64_t heads = 0;
  std::int64_t inner = 0;
  std::int64_t vocabulary = 0;
  std::int64_t positions = 0;  ///< rows of the position embedding; 0: none

  std::int64_t layer_parameters() const;
  /// Token and position embedding; the head is tied to it.
  std::int64_t embedding_parameters() const;
  /// Everything, with the last norm.
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
