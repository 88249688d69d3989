// SPDX-License-Identifier: Apache-2.0
// The operations on CUDA devices, one entry point for each public operation: same arguments, same
// meaning, with arrays in device memory. The public operations have checked what can be checked
// without reading the arrays.
#pragma once

#include <string>

#include "tessera/kernels/activation.hpp"
#include "tessera/kernels/adamw.hpp"
#include "tessera/kernels/attention.hpp"
#include "tessera/kernels/attention_merge.hpp"
#include "tessera/kernels/copy_blocks.hpp"
#include "tessera/kernels/cross_entropy.hpp"
#include "tessera/kernels/cross_entropy_slice.hpp"
#include "tessera/kernels/dropout.hpp"
#include "tessera/kernels/element_loss.hpp"
#include "tessera/kernels/elementwise.hpp"
#include "tessera/kernels/embedding.hpp"
#include "tessera/kernels/gemm.hpp"
#include "tessera/kernels/kv_cache.hpp"
#include "tessera/kernels/layer_norm.hpp"
#include "tessera/kernels/reduce.hpp"
#include "tessera/kernels/rms_norm.hpp"
#include "tessera/kernels/rotary.hpp"
#include "tessera/kernels/sgd.hpp"
#include "tessera/kernels/softmax.hpp"
#include "tessera/kernels/split_master.hpp"
#include "tessera/kernels/standardize.hpp"
#include "tessera/kernels/step_decision.hpp"

namespace tessera::kernels::cuda {

void activation_forward(const Stream& stream, const ActivationForward& args);
void activation_backward(const Stream& stream, const ActivationBackward& args);
void gated_activation_forward(const Stream& stream, const GatedActivationForward& args);
void gated_activation_backward(const Stream& stream, const GatedActivationBackward& args);
void adamw(const Stream& stream, const AdamW& args);
void attention_forward(const Stream& stream, const AttentionForward& args);
void attention_backward(const Stream& stream, const AttentionBackward& args);
void attention_merge(const Stream& stream, const AttentionMerge& args);
/// Attention by cuDNN. False: this call is not for it, and nothing was done. Errors: not_supported
/// where it was asked for (attention_kernels).
bool cudnn_attention_forward(const Stream& stream, const AttentionForward& args);
bool cudnn_attention_backward(const Stream& stream, const AttentionBackward& args);
std::string cudnn_version();
void copy_blocks(const Stream& stream, const CopyBlocks& args);
void cross_entropy(const Stream& stream, const CrossEntropy& args);
void cross_entropy_slice_begin(const Stream& stream, const CrossEntropySlice& args);
void cross_entropy_slice_rescale(const Stream& stream, const CrossEntropySlice& args);
void cross_entropy_slice_finish(const Stream& stream, const CrossEntropySlice& args);
void dropout(const Stream& stream, const Dropout& args);
void element_loss(const Stream& stream, const ElementLoss& args);
void add(const Stream& stream, const void* a, const void* b, void* y, std::int64_t count,
         DType dtype);
void scale(const Stream& stream, const void* x, float alpha, void* y, std::int64_t count,
           DType dtype);
void accumulate(const Stream& stream, const void* x, DType x_type, float alpha, void* accumulator,
                DType accumulator_type, std::int64_t count);
void cast(const Stream& stream, const void* x, DType x_type, void* y, DType y_type,
          std::int64_t count);
void column_sum(const Stream& stream, const ColumnSum& args);
void embedding_forward(const Stream& stream, const EmbeddingForward& args);
void embedding_backward(const Stream& stream, const EmbeddingBackward& args);
void position_ids(const Stream& stream, std::int32_t* ids, std::int64_t rows,
                  std::int64_t positions, std::int64_t first);
/// The product alone, m and n positive. Leading dimensions are filled in.
void gemm(const Stream& stream, const Gemm& args);
/// The product with its epilogue or sums in one step. False: there are none or cuBLASLt cannot, and
/// nothing was done.
bool gemm_with_epilogue(const Stream& stream, const Gemm& args);
void kv_append(const Stream& stream, const KvAppend& args);
void layer_norm_forward(const Stream& stream, const LayerNormForward& args);
void layer_norm_backward(const Stream& stream, const LayerNormBackward& args);
void block_square_sums(const Stream& stream, const void* x, DType dtype, std::int64_t count,
                       double* sums);
/// Waits for the stream.
std::int64_t first_non_finite(const Stream& stream, const void* x, DType dtype, std::int64_t count);
void rms_norm_forward(const Stream& stream, const RmsNormForward& args);
void rms_norm_backward(const Stream& stream, const RmsNormBackward& args);
void rotary(const Stream& stream, const Rotary& args);
void sgd(const Stream& stream, const Sgd& args);
void softmax_forward(const Stream& stream, const SoftmaxForward& args);
void softmax_backward(const Stream& stream, const SoftmaxBackward& args);
void split(const Stream& stream, const float* master, bf16* high, std::uint16_t* low,
           std::int64_t count);
void join(const Stream& stream, const bf16* high, const std::uint16_t* low, float* master,
          std::int64_t count);
void standardize(const Stream& stream, const Standardize& args);
void block_total(const Stream& stream, const BlockTotal& args);
void decide_step(const Stream& stream, const DecideStep& args);
void find_non_finite_piece(const Stream& stream, const FindNonFinitePiece& args);

}  // namespace tessera::kernels::cuda
