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
    if (shape.padded)
      lengths_ = graph_.array(kLengths, {shape.batch, 1, 1, 1}, {1, 1, 1, 1}, CUDNN_DATA_INT32);
  }

  Descriptor forward(cudnnHandle_t handle) && {
    const Value q = of_queries(kQ, shape_.q), k = of_keys(kK, shape_.k);
    const Value scores = causal(unpadded(scaled(over_head(q, GraphBuilder::transposed(k)))));
    const Value largest = graph_.reduce_rows(CUDNN_REDUCE_TENSOR_MAX, scores);
    const Value terms =
        exponential(graph_.pointwise(CUDNN_POINTWISE_SUB, scores, largest, kSingle));
    const Value totals = graph_.reduce_rows(CUDNN_REDUCE_TENSOR_ADD, terms);
    const Value logarithms = graph_.pointwise(CUDNN_POINTWISE_LOG, totals, kSingle);
    graph_.pointwise(CUDNN_POINTWISE_ADD, largest, logarithms, rows(kLse));
    const Value probabilities = graph_.pointwise(CUDNN_POINTWISE_DIV, terms, totals, type_);
    over_positions(probabilities, of_keys(kV, shape_.v), of_queries(kY, shape_.y));
    return std::move(graph_).finish(handle);
  }

  /// Probabilities are computed again from lse.
  Descriptor backward(cudnnHandle_t handle) && {
    const Value q = of_queries(kQ, shape_.q), dy = of_queries(kDy, shape_.dy);
    const Value keys = GraphBuilder::transposed(of_keys(kK, shape_.k));
    const Value shifts = row_shifts(dy);
    const Value scores = unpadded(scaled(over_head(q, keys)));
    const Value logarithms = graph_.pointwise(CUDNN_POINTWISE_SUB, scores, rows(kLse), kSingle);
    const Value probabilities = exponential(causal(logarithms));
    sum_over_queries(probabilities, dy, of_keys(kDv, shape_.dv));

    const Value slopes = over_head(dy, GraphBuilder::transposed(of_keys(kV, shape_.v)));
    const Value shifted = graph_.pointwise(CUDNN_POINTWISE_SUB, slopes, shifts, kSingle);
    const Value d_scores =
        scaled(graph_.pointwise(CUDNN_POINTWISE_MUL, shifted, probabilities, kSingle));
    sum_over_queries(d_scores, q, of_keys(kDk, shape_.dk));

    const Value as_rows = GraphBuilder::transposed(keys);
    over_positions(d_scores, graph_.reshape(keys, as_rows.sizes, as_rows.strides, type_),
                   of_queries(kDq, shape_.dq));
    return std::move(graph_).finish(handle);
  }

 private:
  Value of_queries(std::int64_t number, const Strides& strides) {
    return graph_.array(number, {shape_.batch, shape_.heads, shape_.queries, shape_.head_dim},
                        {strides.batch, shape_.head_dim, strides.row, 1}, type_);
  }
  Value of_keys(std::int64_t number, const Strides& strides) {
    return graph_.array(number, {shape_.batch, shape_.kv_heads, shape_.keys, shape_.head_dim},
                        {strides.batch, shape_.head_dim, strides.row, 1}, type_);
  }
  Value rows(std::int64_t number) {
    const Extents sizes{shape_.batch, shape_.heads, shape_.queries, 1};
    return graph_.array(number, sizes, packed(sizes), kSingle);
  }

  Value scaled(const Value& x) { return graph_.pointwise(CUDNN_POINTWISE_MUL, x, scale_, kSingle); }
  Value exponential(const Value& x) { return graph_.pointwise(CUDNN_POINTWISE_EXP, x, kSingle); }

  const Value* lengths() const { return shape_.padded ? &lengths_ : nullptr; }
  /// Sums over the elements of a head: one for each pair of positions.
  Value over_head(const Value& a, const Value& b) {
    return graph_.matmul(a, b, {.rows = lengths(), .columns = lengths()});
  }
  /// Sums over positions.
  void over_positions(const Value& a, const Value& b, const Value& result) {
    graph_.matmul(a, b, result, {.rows = lengths(), .inner = lengths()});
  }

  Value minus_infinity_unless(const Value& seen, const Value& scores) {
    return graph_.select(scores, graph_.scalar(kMinusInfinity, kSingle), seen);
  }
  /// Minus infinity where the query or the key is padding.
  Value unpadded(const Value& scores) {
    if (!shape_.padded) return scores;
    const auto inside = [&](const Value& position) {
      return graph_.pointwise(CUDNN_POINTWISE_CMP_LT, position, lengths_, CUDNN_DATA_BOOLEAN);
    };
    const Value row = graph_.positions(scores, 2), column = graph_.positions(scores, 3);
    const Value query = inside(row), key = inside(column);
    return minus_infinity_unless(
        graph_.pointwise(CUDNN_POINTWISE_LOGICAL_AND, query, key, CUDNN_DATA_BOOLEAN), scores);
  }
  /// Minus infinity where the key lies behind the query.
  Value causal(const Value& scores) {
    if (!shape_.causal) return scores;
    Value row = graph_.positions(scores, 2);
    const Value column = graph_.positions(scores, 3);
    if (shape_.shifted()) {
      const Value keys = graph_.scalar(kKeys, CUDNN_DATA_INT32);
      const Value queries = graph_.scalar(kQueries, CUDNN_DATA_INT32);
      row = graph_.pointwise(CUDNN_POINTWISE_ADD, row, keys, CUDNN_DATA_INT32);
      row = graph_.pointwise(CUDNN_POINTWISE_SUB, row, queries, CUDNN_DATA_INT32);
    }
    return minus_infinity_unless(
        graph_.pointwise(CUDNN_POINTWISE_CMP_GE, row, column, CUDNN_DATA_BOOLEAN), scores);
  }

  /// dy . y of each row, through memory: a kernel of its own computes it first.
  Value row_shifts(const Value& dy) {
    const Value products =
        graph_.pointwise(CUDNN_POINTWISE_MUL, dy, of_queries(kY, shape_.y), kSingle);
    const Value sums = graph_.reduce_rows(CUDNN_REDUCE_TENSOR_ADD, products);
    const Value shifts = rows(kShifts);
    graph_.pointwise(CUDNN_POINTWISE_MUL, sums, graph_.scalar(kOne, kSingle), shifts);
    return shifts;
  }

  /// result = x^T right, and over the heads of a group where they share keys.
  void sum_over_queries(const Value& x, const Value& right, const Value& result) {
    const Value turned = GraphBuilder::transposed(x);
    const Value left = graph_.reshape(x, turned.sizes, turned.strides, type_);
    if (shape_.heads == shape_.kv_heads) return over_positions(left, right, result);
    const Value each_head =
        graph_.intermediate({shape_.batch, shape_.heads, shape_.keys, shape_.head_dim}, type_);
    over_positions(left, right, each_head);
    graph_.reduce(CUDNN_REDUCE_TENSOR_ADD, each_head, result);
  }

  const AttentionShape& shape_;
  cudnnDataType_t type_;
  GraphBuilder graph_;
  Value scale_;
  Value lengths_{};
};

}  // namespace

AttentionShape::AttentionShape(const AttentionForward& args)
    : batch(args.batch),
      heads(args.heads),
      kv_heads(args.kv_heads),
      queries(args.queries),
      keys(args.keys),
      head_dim(args.head_dim),
      q{args.q_row_stride, args.q_batch_stride},
      k{args.k_row_stride, args.k_batch_stride},
      v{args.v_row_stride, args.v_batch_stride},
      y{args.y_row_stride, args.y_batch_stride},
      dq(q),
      dk(k),
      dv(v),
      dy(y),
      causal(args.causal),
      padded(args.lengths != nullptr),
      dtype(args.dtype) {}

Descriptor forward_graph(const AttentionShape& shape, cudnnHandle_t handle) {
  return AttentionGraph(shape).forward(handle);
}

Descriptor backward_graph(const AttentionShape& shape, cudnnHandle_t handle) {
  return AttentionGraph(shape).backward(handle);
}

}  // namespace tessera::kernels::cuda::cudnn
