// SPDX-License-Identifier: Apache-2.0
// cuDNN takes attention as the graph of its parts: the products, the mask, the softmax. Its engines
// recognise exactly these patterns and run each as one kernel, or a few. (Its single operation for
// attention has neither a causal mask nor a backward pass before 9.21.)
#include "kernels/cuda/cudnn_attention_graph.hpp"

#include <utility>

namespace tessera::kernels::cuda::cudnn {
namespace {

constexpr cudnnDataType_t kSingle = CUDNN_DATA_FLOAT;

class AttentionGraph {
 public:
  explicit AttentionGraph(const AttentionShape& shape)
      : shape_(shape), type_(shape.dtype == DType::bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_HALF) {
    scale_ = graph_.scalar(kScale, kSingle);
  }

  Descriptor forward(cudnnHandle_t handle) && {
    const Value scores = masked(scaled(graph_.matmul(q(kQ), GraphBuilder::transposed(k(kK)))));
    const Value largest = graph_.reduce_rows(CUDNN_REDUCE_TENSOR_MAX, scores);
    const Value terms =
        exponential(graph_.pointwise(CUDNN_POINTWISE_SUB, scores, largest, kSingle));
    const Value totals = graph_.reduce_rows(CUDNN_REDUCE_TENSOR_ADD, terms);
    const Value logarithms = graph_.pointwise(CUDNN_POINTWISE_LOG, totals, kSingle);
    graph_.pointwise(CUDNN_POINTWISE_ADD, largest, logarithms, rows(kLse));
    const Value probabilities = graph_.pointwise(CUDNN_POINTWISE_DIV, terms, totals, type_);
    graph_.matmul(probabilities, v(kV), y(kY));
    return std::move(graph_).finish(handle);
  }

  /// Probabilities are computed again from lse.
  Descriptor backward(cudnnHandle_t handle) && {
    const Value dy = y(kDy), q_value = q(kQ), keys = GraphBuilder::transposed(k(kK));
    const Value shifts = row_shifts(dy);
    const Value scores = scaled(graph_.matmul(q_value, keys));
    const Value logarithms =
        masked(graph_.pointwise(CUDNN_POINTWISE_SUB, scores, rows(kLse), kSingle));
    const Value probabilities = exponential(logarithms);
    sum_over_queries(probabilities, dy, k_like(kDv, shape_.v_row, shape_.v_batch));

    const Value slopes = graph_.matmul(dy, GraphBuilder::transposed(v(kV)));
    const Value shifted = graph_.pointwise(CUDNN_POINTWISE_SUB, slopes, shifts, kSingle);
    const Value d_scores =
        scaled(graph_.pointwise(CUDNN_POINTWISE_MUL, shifted, probabilities, kSingle));
    sum_over_queries(d_scores, q_value, k_like(kDk, shape_.k_row, shape_.k_batch));

    const Value as_rows = GraphBuilder::transposed(keys);
    graph_.matmul(d_scores, graph_.reshape(keys, as_rows.sizes, as_rows.strides, type_), q(kDq));
    return std::move(graph_).finish(handle);
  }

 private:
  Value q(std::int64_t number) { return q_like(number, shape_.q_row, shape_.q_batch); }
  Value y(std::int64_t number) { return q_like(number, shape_.y_row, shape_.y_batch); }
  Value k(std::int64_t number) { return k_like(number, shape_.k_row, shape_.k_batch); }
  Value v(std::int64_t number) { return k_like(number, shape_.v_row, shape_.v_batch); }
  Value q_like(std::int64_t number, std::int64_t row, std::int64_t batch) {
    return graph_.array(number, {shape_.batch, shape_.heads, shape_.queries, shape_.head_dim},
                        {batch, shape_.head_dim, row, 1}, type_);
  }
  Value k_like(std::int64_t number, std::int64_t row, std::int64_t batch) {
    return graph_.array(number, {shape_.batch, shape_.kv_heads, shape_.keys, shape_.head_dim},
                        {batch, shape_.head_dim, row, 1}, type_);
  }
  Value rows(std::int64_t number) {
    const Extents sizes{shape_.batch, shape_.heads, shape_.queries, 1};
    return graph_.array(number, sizes, packed(sizes), kSingle);
  }

  Value scaled(const Value& x) { return graph_.pointwise(CUDNN_POINTWISE_MUL, x, scale_, kSingle); }
  Value exponential(const Value& x) { return graph_.pointwise(CUDNN_POINTWISE_EXP, x, kSingle); }

  /// Minus infinity where the key lies behind the query.
  Value masked(const Value& scores) {
    if (!shape_.causal) return scores;
    Value row = graph_.positions(scores, 2);
    const Value column = graph_.positions(scores, 3);
    if (shape_.shifted()) {
      const Value keys = graph_.scalar(kKeys, CUDNN_DATA_INT32);
      const Value queries = graph_.scalar(kQueries, CUDNN_DATA_INT32);
      row = graph_.pointwise(CUDNN_POINTWISE_ADD, row, keys, CUDNN_DATA_INT32);
      row = graph_.pointwise(CUDNN_POINTWISE_SUB, row, queries, CUDNN_DATA_INT32);
    }
    const Value seen = graph_.pointwise(CUDNN_POINTWISE_CMP_GE, row, column, CUDNN_DATA_BOOLEAN);
    return graph_.select(scores, graph_.scalar(kMinusInfinity, kSingle), seen);
  }

  /// dy . y of each row, through memory: a kernel of its own computes it first.
  Value row_shifts(const Value& dy) {
    const Value products = graph_.pointwise(CUDNN_POINTWISE_MUL, dy, y(kY), kSingle);
    const Value sums = graph_.reduce_rows(CUDNN_REDUCE_TENSOR_ADD, products);
    const Value shifts = rows(kShifts);
    graph_.pointwise(CUDNN_POINTWISE_MUL, sums, graph_.scalar(kOne, kSingle), shifts);
    return shifts;
  }

  /// result = x^T right, and over the heads of a group where they share keys.
  void sum_over_queries(const Value& x, const Value& right, const Value& result) {
    const Value turned = GraphBuilder::transposed(x);
    const Value left = graph_.reshape(x, turned.sizes, turned.strides, type_);
    if (shape_.heads == shape_.kv_heads) return graph_.matmul(left, right, result);
    const Value each_head =
        graph_.intermediate({shape_.batch, shape_.heads, shape_.keys, shape_.head_dim}, type_);
    graph_.matmul(left, right, each_head);
    graph_.reduce(CUDNN_REDUCE_TENSOR_ADD, each_head, result);
  }

  const AttentionShape& shape_;
  cudnnDataType_t type_;
  GraphBuilder graph_;
  Value scale_;
};

}  // namespace

AttentionShape::AttentionShape(const AttentionForward& args)
    : batch(args.batch),
      heads(args.heads),
      kv_heads(args.kv_heads),
      queries(args.queries),
      keys(args.keys),
      head_dim(args.head_dim),
      q_row(args.q_row_stride),
      k_row(args.k_row_stride),
      v_row(args.v_row_stride),
      y_row(args.y_row_stride),
      q_batch(args.q_batch_stride),
      k_batch(args.k_batch_stride),
      v_batch(args.v_batch_stride),
      y_batch(args.y_batch_stride),
      causal(args.causal),
      dtype(args.dtype) {}

Descriptor forward_graph(const AttentionShape& shape, cudnnHandle_t handle) {
  return AttentionGraph(shape).forward(handle);
}

Descriptor backward_graph(const AttentionShape& shape, cudnnHandle_t handle) {
  return AttentionGraph(shape).backward(handle);
}

}  // namespace tessera::kernels::cuda::cudnn
