// SPDX-License-Identifier: Apache-2.0
// What stands in for the CUDA operations in a build without them: errors that say so.
#include <string>

#include "tessera/base/error.hpp"

#include "kernels/cuda/operations.hpp"

namespace tessera::kernels::cuda {
namespace {

[[noreturn]] void absent(const Stream& stream, const char* operation) {
  fail(Code::not_supported,
       std::string("this build has no ") + operation + " for " + stream.device().to_string() +
           "; move the tensors to the CPU, or configure with -DTESSERA_ENABLE_CUDA=on where the "
           "CUDA toolkit is installed");
}

}  // namespace

void activation_forward(const Stream& stream, const ActivationForward&) {
  absent(stream, "activation_forward");
}
void activation_backward(const Stream& stream, const ActivationBackward&) {
  absent(stream, "activation_backward");
}
void gated_activation_forward(const Stream& stream, const GatedActivationForward&) {
  absent(stream, "gated_activation_forward");
}
void gated_activation_backward(const Stream& stream, const GatedActivationBackward&) {
  absent(stream, "gated_activation_backward");
}
void adamw(const Stream& stream, const AdamW&) {
  absent(stream, "adamw");
}
void attention_forward(const Stream& stream, const AttentionForward&) {
  absent(stream, "attention_forward");
}
void attention_backward(const Stream& stream, const AttentionBackward&) {
  absent(stream, "attention_backward");
}
void attention_merge(const Stream& stream, const AttentionMerge&) {
  absent(stream, "attention_merge");
}
void copy_blocks(const Stream& stream, const CopyBlocks&) {
  absent(stream, "copy_blocks");
}
void cross_entropy(const Stream& stream, const CrossEntropy&) {
  absent(stream, "cross_entropy");
}
void cross_entropy_slice_begin(const Stream& stream, const CrossEntropySlice&) {
  absent(stream, "cross_entropy_slice_begin");
}
void cross_entropy_slice_rescale(const Stream& stream, const CrossEntropySlice&) {
  absent(stream, "cross_entropy_slice_rescale");
}
void cross_entropy_slice_finish(const Stream& stream, const CrossEntropySlice&) {
  absent(stream, "cross_entropy_slice_finish");
}
void dropout(const Stream& stream, const Dropout&) {
  absent(stream, "dropout");
}
void element_loss(const Stream& stream, const ElementLoss&) {
  absent(stream, "element_loss");
}
void add(const Stream& stream, const void*, const void*, void*, std::int64_t, DType) {
  absent(stream, "add");
}
void scale(const Stream& stream, const void*, float, void*, std::int64_t, DType) {
  absent(stream, "scale");
}
void accumulate(const Stream& stream, const void*, DType, float, void*, DType, std::int64_t) {
  absent(stream, "accumulate");
}
void cast(const Stream& stream, const void*, DType, void*, DType, std::int64_t) {
  absent(stream, "cast");
}
void column_sum(const Stream& stream, const ColumnSum&) {
  absent(stream, "column_sum");
}
void position_ids(const Stream& stream, std::int32_t*, std::int64_t, std::int64_t, std::int64_t) {
  absent(stream, "position_ids");
}
void embedding_forward(const Stream& stream, const EmbeddingForward&) {
  absent(stream, "embedding_forward");
}
void embedding_backward(const Stream& stream, const EmbeddingBackward&) {
  absent(stream, "embedding_backward");
}
void gemm(const Stream& stream, const Gemm&) {
  absent(stream, "gemm");
}
bool gemm_with_epilogue(const Stream& stream, const Gemm&) {
  absent(stream, "gemm");
}
void kv_append(const Stream& stream, const KvAppend&) {
  absent(stream, "kv_append");
}
void layer_norm_forward(const Stream& stream, const LayerNormForward&) {
  absent(stream, "layer_norm_forward");
}
void layer_norm_backward(const Stream& stream, const LayerNormBackward&) {
  absent(stream, "layer_norm_backward");
}
void block_square_sums(const Stream& stream, const void*, DType, std::int64_t, double*) {
  absent(stream, "block_square_sums");
}
std::int64_t first_non_finite(const Stream& stream, const void*, DType, std::int64_t) {
  absent(stream, "first_non_finite");
}
void rms_norm_forward(const Stream& stream, const RmsNormForward&) {
  absent(stream, "rms_norm_forward");
}
void rms_norm_backward(const Stream& stream, const RmsNormBackward&) {
  absent(stream, "rms_norm_backward");
}
void rotary(const Stream& stream, const Rotary&) {
  absent(stream, "rotary");
}
void sgd(const Stream& stream, const Sgd&) {
  absent(stream, "sgd");
}
void softmax_forward(const Stream& stream, const SoftmaxForward&) {
  absent(stream, "softmax_forward");
}
void softmax_backward(const Stream& stream, const SoftmaxBackward&) {
  absent(stream, "softmax_backward");
}
void split(const Stream& stream, const float*, bf16*, std::uint16_t*, std::int64_t) {
  absent(stream, "split");
}
void join(const Stream& stream, const bf16*, const std::uint16_t*, float*, std::int64_t) {
  absent(stream, "join");
}
void standardize(const Stream& stream, const Standardize&) {
  absent(stream, "standardize");
}
void block_total(const Stream& stream, const BlockTotal&) {
  absent(stream, "block_total");
}
void decide_step(const Stream& stream, const DecideStep&) {
  absent(stream, "decide_step");
}
void find_non_finite_piece(const Stream& stream, const FindNonFinitePiece&) {
  absent(stream, "find_non_finite_piece");
}

}  // namespace tessera::kernels::cuda
