// SPDX-License-Identifier: Apache-2.0
// Attention as graphs that cuDNN's fused engines recognise.
#pragma once

#include <compare>
#include <cstdint>

#include "tessera/kernels/attention.hpp"

#include "kernels/cuda/cudnn_graph.hpp"

namespace tessera::kernels::cuda::cudnn {

/// Numbers of the values that a caller gives. Of the backward pass as well from `dy` on.
enum AttentionValue : std::int64_t {
  kQ = 1,
  kK,
  kV,
  kY,
  kLse,
  kScale,          // scalar, fp32
  kMinusInfinity,  // scalar, fp32: score of keys that are not seen
  kQueries,        // scalars, int32: their numbers, where they differ and the call is causal
  kKeys,
  kDy,
  kDq,
  kDk,
  kDv,
  kShifts,   // [batch, heads, queries] fp32, scratch: dy . y
  kOne,      // scalar, fp32
  kLengths,  // [batch, 1, 1, 1] int32, where the call has lengths
};

/// Of an array in elements; those of a head lie side by side.
struct Strides {
  std::int64_t row, batch;
  auto operator<=>(const Strides&) const = default;
};

/// What the graph of a call depends on: equal shapes share a plan.
struct AttentionShape {
  explicit AttentionShape(const AttentionForward& args);

  std::int64_t batch, heads, kv_heads, queries, keys, head_dim;
  Strides q, k, v, y;      // of what is read, and of y
  Strides dq, dk, dv, dy;  // the caller's, like those of q, k, v and y unless set
  bool causal;
  bool padded;  // rows have lengths
  DType dtype;

  /// Queries begin in the middle of the keys.
  bool shifted() const { return causal && queries != keys; }
  auto operator<=>(const AttentionShape&) const = default;
};

Descriptor forward_graph(const AttentionShape& shape, cudnnHandle_t handle);
Descriptor backward_graph(const AttentionShape& shape, cudnnHandle_t handle);

}  // namespace tessera::kernels::cuda::cudnn
