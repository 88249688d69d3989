// SPDX-License-Identifier: Apache-2.0
// Scaled dot-product attention, blockwise with online softmax: no T x T matrix is kept (Dao et al.
// 2022).
#pragma once

#include <cstdint>
#include <string>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"
#include "tessera/kernels/pass_variables.hpp"

namespace tessera::kernels {

/// Element (batch, position, head, i) of q is at q + batch * q_batch_stride + position *
/// q_row_stride + head * head_dim + i, likewise k, v, y: a fused [B, T, 3C] projection is read in
/// place with row stride 3C. kv_heads divides heads (grouped-query). Query t sits at key position t
/// + (keys - queries) and, when causal, sees keys up to there. lse [batch, heads, queries] keeps
/// log-sum-exp in fp32 for the backward pass (nullptr: not wanted). head_dim is at most 256; causal
/// needs queries <= keys. FLOPs added to flop_count(): 4 batch heads queries keys head_dim, as if
/// nothing were masked (the PaLM convention, 12 L h s per token with the backward pass).
///
/// With `lengths`, which needs as many keys as queries, row b of the batch is a sequence of
/// lengths[b] positions, 0 to all; what lies behind is padding. No key or value there is seen, y
/// and lse there become 0, and so do dq, dk and dv, whatever q, k, v and dy hold there, NaN
/// included. Time follows the lengths. A length outside of its range is an error on the CPU
/// (invalid_argument); a GPU, which the host does not wait for, takes the nearest possible one.
/// Dropout and flop_count() go by the padded sizes.
struct AttentionForward {
  const void* q;
  const void* k;
  const void* v;
  void* y;
  float* lse = nullptr;
  std::int64_t batch, heads, kv_heads, queries, keys, head_dim;
  std::int64_t q_row_stride, k_row_stride, v_row_stride, y_row_stride;          // elements
  std::int64_t q_batch_stride, k_batch_stride, v_batch_stride, y_batch_stride;  // elements
  float scale;
  bool causal = true;
  DType dtype;
  // Dropout on the probabilities (0: none). Element index: (((batch_offset + b) * all_heads +
  // head_offset + h) * queries + query_offset + t) * keys + key_offset + s, of all positions.
  float dropout = 0;
  std::uint64_t dropout_seed = 0, dropout_stream = 0;
  std::int64_t batch_offset = 0;
  // Of sequences of all_positions, where these queries and keys are some of their positions; 0:
  // queries and keys are all there are.
  std::int64_t query_offset = 0, key_offset = 0, all_positions = 0;
  // If set, dropout's stream is mix(variables->step, dropout_stream), and variables->first_row is
  // added to batch_offset.
  const PassVariables* variables = nullptr;
  // Of the model, where these heads are some of them; 0: heads.
  std::int64_t head_offset = 0, all_heads = 0;
  // [batch], in the memory of the stream's device; nullptr: every row is whole.
  const std::int32_t* lengths = nullptr;
};
void attention_forward(const Stream& stream, const AttentionForward& args);

/// Recomputes the probabilities block by block from q, k and lse. dq, dk, dv have the strides of q,
/// k, v and are overwritten. The bits do not depend on the number of threads. FLOPs added: twice
/// the forward pass's; the recomputation does not count.
struct AttentionBackward {
  AttentionForward forward;  // as in the forward pass, with y and lse filled
  const void* dy;            // strides of y
  void* dq;
  void* dk;
  void* dv;
};
void attention_backward(const Stream& stream, const AttentionBackward& args);

/// Whose kernels compute attention on CUDA devices.
enum class AttentionKernels : std::uint8_t {
  /// cuDNN's, where the build has them, for calls that they take and that come again: bf16 or fp16,
  /// without dropout, as many keys as queries, a multiple of 64 of them. Else own.
  automatic,
  cudnn,  ///< cuDNN's for every call; what they do not take is refused (not_supported)
  own,
};
const char* to_string(AttentionKernels kernels);
/// For the whole process; the CPU has no such choice.
void set_attention_kernels(AttentionKernels kernels);
AttentionKernels attention_kernels();

/// "9.19.0", of the cuDNN that this process uses; empty in builds without it.
std::string cudnn_version();

}  // namespace tessera::kernels
