// SPDX-License-Identifier: Apache-2.0
// Each operation that has a CUDA kernel of its own, on arrays of any size.
#pragma once

#include <cstdint>

#include "tessera/kernels/attention.hpp"
#include "tessera/kernels/attention_merge.hpp"
#include "tessera/kernels/copy_blocks.hpp"

#include "kernels/cuda/gpu_case.hpp"

namespace tessera::testing::gpu_cases {

using namespace kernels;  // NOLINT(google-build-using-namespace): what is called

inline GpuCase add(DType dtype, std::int64_t count) {
  GpuCase result("add", dtype, 1, count);
  const void *a = result.read(dtype, count), *b = result.read(dtype, count);
  void* y = result.write(dtype, count);
  result.calls([=](const Stream& stream) { kernels::add(stream, a, b, y, count, dtype); });
  return result;
}

inline GpuCase scale(DType dtype, std::int64_t count) {
  GpuCase result("scale", dtype, 1, count);
  const void* x = result.read(dtype, count);
  void* y = result.write(dtype, count);
  result.calls([=](const Stream& stream) { kernels::scale(stream, x, 0.3f, y, count, dtype); });
  return result;
}

/// Into fp32.
inline GpuCase accumulate(DType dtype, std::int64_t count) {
  GpuCase result("accumulate", dtype, 1, count);
  const void* x = result.read(dtype, count);
  void* sum = result.update(DType::fp32, count);
  result.calls([=](const Stream& stream) {
    kernels::accumulate(stream, x, dtype, 0.3f, sum, DType::fp32, count);
  });
  return result;
}

/// From fp32 to a type, or if that is fp32, from bf16.
inline GpuCase cast(DType dtype, std::int64_t count) {
  GpuCase result("cast", dtype, 1, count);
  const DType from = dtype == DType::fp32 ? DType::bf16 : DType::fp32;
  const void* x = result.read(from, count);
  void* y = result.write(dtype, count);
  result.calls([=](const Stream& stream) { kernels::cast(stream, x, from, y, dtype, count); });
  return result;
}

inline GpuCase column_sum(DType dtype, std::int64_t rows, std::int64_t columns) {
  GpuCase result("column_sum", dtype, rows, columns);
  const ColumnSum args{.x = result.read(dtype, rows * columns),
                       .y = result.write(dtype, columns),
                       .output_type = dtype,
                       .accumulate = false,
                       .rows = rows,
                       .columns = columns,
                       .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::column_sum(stream, args); });
  return result;
}

inline GpuCase activation_forward(DType dtype, std::int64_t count) {
  GpuCase result("activation_forward", dtype, 1, count);
  const ActivationForward args{.x = result.read(dtype, count),
                               .y = result.write(dtype, count),
                               .count = count,
                               .function = Activation::gelu_tanh,
                               .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::activation_forward(stream, args); });
  return result;
}

inline GpuCase activation_backward(DType dtype, std::int64_t count) {
  GpuCase result("activation_backward", dtype, 1, count);
  const ActivationBackward args{.dy = result.read(dtype, count),
                                .x = result.read(dtype, count),
                                .dx = result.write(dtype, count),
                                .count = count,
                                .function = Activation::gelu_tanh,
                                .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::activation_backward(stream, args); });
  return result;
}

inline GpuCase gated_activation_forward(DType dtype, std::int64_t count) {
  GpuCase result("gated_activation_forward", dtype, 1, count);
  const GatedActivationForward args{.gate = result.read(dtype, count),
                                    .up = result.read(dtype, count),
                                    .y = result.write(dtype, count),
                                    .count = count,
                                    .function = Activation::silu,
                                    .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::gated_activation_forward(stream, args); });
  return result;
}

inline GpuCase gated_activation_backward(DType dtype, std::int64_t count) {
  GpuCase result("gated_activation_backward", dtype, 1, count);
  const GatedActivationBackward args{.dy = result.read(dtype, count),
                                     .gate = result.read(dtype, count),
                                     .up = result.read(dtype, count),
                                     .dgate = result.write(dtype, count),
                                     .dup = result.write(dtype, count),
                                     .count = count,
                                     .function = Activation::silu,
                                     .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::gated_activation_backward(stream, args); });
  return result;
}

/// Huber's, which has most to compute.
inline GpuCase element_loss(DType dtype, std::int64_t count) {
  GpuCase result("element_loss", dtype, 1, count);
  const ElementLoss args{
      .prediction = result.read(dtype, count),
      .target = result.read_floats(count),
      .sums = static_cast<double*>(result.write(DType::fp64, ceil_divide(count, kLossBlock))),
      .dprediction = result.write(dtype, count),
      .scale = 0.3f,
      .count = count,
      .kind = ElementLossKind::huber,
      .delta = 0.5f,
      .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::element_loss(stream, args); });
  return result;
}

inline GpuCase dropout(DType dtype, std::int64_t count) {
  GpuCase result("dropout", dtype, 1, count);
  const Dropout args{.x = result.read(dtype, count),
                     .residual = result.read(dtype, count),
                     .y = result.write(dtype, count),
                     .count = count,
                     .offset = 0,
                     .probability = 0.1f,
                     .seed = 1,
                     .stream = 2,
                     .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::dropout(stream, args); });
  return result;
}

/// What both update rules have: a plain fp32 parameter, or a split one.
template <typename Update>
void describe_update(GpuCase& result, Update& args, DType dtype, std::int64_t count) {
  args.parameter = result.update(dtype, count);
  if (dtype == DType::bf16)
    args.low = static_cast<std::uint16_t*>(result.update(DType::bf16, count));
  args.gradient = result.read(dtype, count);
  args.gradient_type = dtype;
  args.lr = 1e-3;
  args.weight_decay = 0.1;
  args.count = count;
}

inline GpuCase adamw(DType dtype, std::int64_t count) {
  GpuCase result("adamw", dtype, 1, count);
  AdamW args{};
  describe_update(result, args, dtype, count);
  args.exp_avg = result.update_floats(count);
  args.exp_avg_sq = result.update_floats(count);
  args.beta1 = 0.9;
  args.beta2 = 0.95;
  args.epsilon = 1e-8;
  args.correction1 = 0.1;
  args.correction2 = 0.05;
  result.calls([=](const Stream& stream) { kernels::adamw(stream, args); });
  return result;
}

inline GpuCase sgd(DType dtype, std::int64_t count) {
  GpuCase result("sgd", dtype, 1, count);
  Sgd args{};
  describe_update(result, args, dtype, count);
  args.momentum_buffer = result.update_floats(count);
  args.momentum = 0.9;
  result.calls([=](const Stream& stream) { kernels::sgd(stream, args); });
  return result;
}

inline GpuCase split(std::int64_t count) {
  GpuCase result("split", DType::bf16, 1, count);
  const float* master = result.read_floats(count);
  auto* high = static_cast<bf16*>(result.write(DType::bf16, count));
  auto* low = static_cast<std::uint16_t*>(result.write(DType::bf16, count));
  result.calls([=](const Stream& stream) { kernels::split(stream, master, high, low, count); });
  return result;
}

inline GpuCase join(std::int64_t count) {
  GpuCase result("join", DType::bf16, 1, count);
  const auto* high = static_cast<const bf16*>(result.read(DType::bf16, count));
  const auto* low = static_cast<const std::uint16_t*>(result.read(DType::bf16, count));
  float* master = result.write_floats(count);
  result.calls([=](const Stream& stream) { kernels::join(stream, high, low, master, count); });
  return result;
}

inline GpuCase block_square_sums(DType dtype, std::int64_t count) {
  GpuCase result("block_square_sums", dtype, 1, count);
  const void* x = result.read(dtype, count);
  auto* sums = static_cast<double*>(result.write(DType::fp64, ceil_divide(count, kNormBlock)));
  result.calls(
      [=](const Stream& stream) { kernels::block_square_sums(stream, x, dtype, count, sums); });
  return result;
}

/// Groups of one block each but for the first, which has the rest.
inline GpuCase block_total(std::int64_t blocks, std::int64_t groups) {
  GpuCase result("block_total", DType::fp64, 1, blocks);
  const auto* sums = static_cast<const double*>(result.read(DType::fp64, blocks));
  std::vector<std::int64_t> first{0};
  for (std::int64_t group = 0; group < groups; ++group)
    first.push_back(blocks - groups + group + 1);
  const auto* boundaries = result.integers(first);
  const BlockTotal args{.blocks = sums,
                        .first = boundaries,
                        .groups = groups,
                        .group_sums = static_cast<double*>(result.aside(DType::fp64, groups)),
                        .total = static_cast<double*>(result.write(DType::fp64, 1))};
  result.calls([=](const Stream& stream) { kernels::block_total(stream, args); });
  return result;
}

inline GpuCase first_non_finite(DType dtype, std::int64_t count) {
  GpuCase result("first_non_finite", dtype, 1, count);
  const void* x = result.read(dtype, count);
  result.calls([=](const Stream& stream) { kernels::first_non_finite(stream, x, dtype, count); });
  return result;
}

inline GpuCase layer_norm_forward(DType dtype, std::int64_t rows, std::int64_t columns) {
  GpuCase result("layer_norm_forward", dtype, rows, columns);
  const LayerNormForward args{.x = result.read(dtype, rows * columns),
                              .weight = result.read(dtype, columns),
                              .bias = result.read(dtype, columns),
                              .y = result.write(dtype, rows * columns),
                              .mean = result.write_floats(rows),
                              .rstd = result.write_floats(rows),
                              .rows = rows,
                              .columns = columns,
                              .epsilon = 1e-5f,
                              .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::layer_norm_forward(stream, args); });
  return result;
}

/// In place of x.
inline GpuCase layer_norm_of_sum(DType dtype, std::int64_t rows, std::int64_t columns) {
  GpuCase result("layer_norm_of_sum", dtype, rows, columns);
  void* x = result.update(dtype, rows * columns);
  const LayerNormForward args{.x = x,
                              .weight = result.read(dtype, columns),
                              .bias = result.read(dtype, columns),
                              .y = result.write(dtype, rows * columns),
                              .mean = result.write_floats(rows),
                              .rstd = result.write_floats(rows),
                              .rows = rows,
                              .columns = columns,
                              .epsilon = 1e-5f,
                              .dtype = dtype,
                              .residual = result.read(dtype, rows * columns),
                              .sum = x};
  result.calls([=](const Stream& stream) { kernels::layer_norm_forward(stream, args); });
  return result;
}

/// Adds to dx, as behind a residual branch.
inline GpuCase layer_norm_backward(DType dtype, std::int64_t rows, std::int64_t columns) {
  GpuCase result("layer_norm_backward", dtype, rows, columns);
  const LayerNormBackward args{.dy = result.read(dtype, rows * columns),
                               .x = result.read(dtype, rows * columns),
                               .weight = result.read(dtype, columns),
                               .mean = result.read_floats(rows),
                               .rstd = result.read_floats(rows),
                               .dx = result.update(dtype, rows * columns),
                               .accumulate_dx = true,
                               .dweight = result.write(dtype, columns),
                               .dbias = result.write(dtype, columns),
                               .gradient_type = dtype,
                               .accumulate = false,
                               .rows = rows,
                               .columns = columns,
                               .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::layer_norm_backward(stream, args); });
  return result;
}

inline GpuCase rms_norm_forward(DType dtype, std::int64_t rows, std::int64_t columns) {
  GpuCase result("rms_norm_forward", dtype, rows, columns);
  const RmsNormForward args{.x = result.read(dtype, rows * columns),
                            .weight = result.read(dtype, columns),
                            .y = result.write(dtype, rows * columns),
                            .rstd = result.write_floats(rows),
                            .rows = rows,
                            .columns = columns,
                            .epsilon = 1e-5f,
                            .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::rms_norm_forward(stream, args); });
  return result;
}

inline GpuCase rms_norm_backward(DType dtype, std::int64_t rows, std::int64_t columns) {
  GpuCase result("rms_norm_backward", dtype, rows, columns);
  const RmsNormBackward args{.dy = result.read(dtype, rows * columns),
                             .x = result.read(dtype, rows * columns),
                             .weight = result.read(dtype, columns),
                             .rstd = result.read_floats(rows),
                             .dx = result.update(dtype, rows * columns),
                             .accumulate_dx = true,
                             .dweight = result.write(dtype, columns),
                             .gradient_type = dtype,
                             .accumulate = false,
                             .rows = rows,
                             .columns = columns,
                             .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::rms_norm_backward(stream, args); });
  return result;
}

inline GpuCase softmax_forward(DType dtype, std::int64_t rows, std::int64_t columns) {
  GpuCase result("softmax_forward", dtype, rows, columns);
  const SoftmaxForward args{.x = result.read(dtype, rows * columns),
                            .y = result.write(dtype, rows * columns),
                            .rows = rows,
                            .columns = columns,
                            .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::softmax_forward(stream, args); });
  return result;
}

inline GpuCase softmax_backward(DType dtype, std::int64_t rows, std::int64_t columns) {
  GpuCase result("softmax_backward", dtype, rows, columns);
  const SoftmaxBackward args{.dy = result.read(dtype, rows * columns),
                             .y = result.read(dtype, rows * columns),
                             .dx = result.write(dtype, rows * columns),
                             .rows = rows,
                             .columns = columns,
                             .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::softmax_backward(stream, args); });
  return result;
}

/// The gradient takes the place of the logits.
inline GpuCase cross_entropy(DType dtype, std::int64_t rows, std::int64_t columns) {
  GpuCase result("cross_entropy", dtype, rows, columns);
  void* logits = result.update(dtype, rows * columns);
  const CrossEntropy args{.logits = logits,
                          .targets = result.indices(rows, columns, 997),
                          .losses = result.write_floats(rows),
                          .dlogits = logits,
                          .scale = 1.0f / 64,
                          .rows = rows,
                          .columns = columns,
                          .valid_columns = columns - 1,
                          .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::cross_entropy(stream, args); });
  return result;
}

/// Heads of a third of the columns leave their neighbours, as before an all-to-all.
inline GpuCase standardize(std::int64_t rows, std::int64_t columns) {
  GpuCase result("standardize", DType::fp32, rows, columns);
  const Standardize args{.x = result.read_floats(rows * columns),
                         .y = result.write_floats(rows * columns),
                         .mean = static_cast<const double*>(result.read(DType::fp64, columns)),
                         .deviation = static_cast<const double*>(result.read(DType::fp64, columns)),
                         .rows = rows,
                         .columns = columns};
  result.calls([=](const Stream& stream) { kernels::standardize(stream, args); });
  return result;
}

inline GpuCase copy_blocks(DType dtype, std::int64_t rows, std::int64_t columns) {
  GpuCase result("copy_blocks", dtype, rows, columns);
  const CopyBlocks args{.source = result.read(dtype, rows * columns),
                        .target = result.write(dtype, rows * columns),
                        .blocks = 3,
                        .rows = rows,
                        .count = columns / 3,
                        .source_strides = {columns / 3, columns},
                        .target_strides = {rows * (columns / 3), columns / 3},
                        .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::copy_blocks(stream, args); });
  return result;
}

/// Of some more keys, with heads of 64.
inline GpuCase attention_merge(DType dtype, std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t kHead = 64;
  GpuCase result("attention_merge", dtype, rows, columns);
  const AttentionMerge args{.part = result.read(dtype, rows * columns),
                            .part_lse = result.read_floats(rows * columns / kHead),
                            .sum = result.update_floats(rows * columns),
                            .lse = result.update_floats(rows * columns / kHead),
                            .first = false,
                            .batch = 4,
                            .queries = rows / 4,
                            .heads = columns / kHead,
                            .head_dim = kHead,
                            .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::attention_merge(stream, args); });
  return result;
}

/// Of 4 rows.
inline GpuCase kv_append(DType dtype, std::int64_t rows, std::int64_t columns) {
  GpuCase result("kv_append", dtype, rows, columns);
  const KvAppend args{.keys = result.read(dtype, rows * columns),
                      .values = result.read(dtype, rows * columns),
                      .cached_keys = result.write(dtype, rows * columns),
                      .cached_values = result.write(dtype, rows * columns),
                      .rows = 4,
                      .count = rows / 4,
                      .width = columns,
                      .stride = columns,
                      .capacity = rows / 4,
                      .length = 0,
                      .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::kv_append(stream, args); });
  return result;
}

/// In place, on heads of 64.
inline GpuCase rotary(DType dtype, std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t kHead = 64;
  GpuCase result("rotary", dtype, rows, columns);
  const Rotary args{.x = result.update(dtype, rows * columns),
                    .positions = result.indices(rows, rows, 1),
                    .inverse_frequency = result.read_floats(kHead / 2),
                    .rows = rows,
                    .heads = columns / kHead,
                    .head_dim = kHead,
                    .rotary_dim = kHead,
                    .row_stride = columns,
                    .dtype = dtype};
  result.calls([=](const Stream& stream) { kernels::rotary(stream, args); });
  return result;
}

/// Of a table with `table_rows`, each taken once while there are some left.
inline GpuCase embedding_forward(DType dtype, std::int64_t rows, std::int64_t columns,
                                 std::int64_t table_rows) {
  GpuCase result("embedding_forward", dtype, rows, columns);
  const EmbeddingForward args{.table = result.aside(dtype, table_rows * columns),
                              .ids = result.indices(rows, table_rows, 7),
                              .y = result.write(dtype, rows * columns),
                              .rows = rows,
                              .columns = columns,
                              .table_rows = table_rows,
                              .dtype = dtype};
  result.least(std::min(rows, table_rows) * columns * static_cast<std::int64_t>(size_of(dtype)));
  result.calls([=](const Stream& stream) { kernels::embedding_forward(stream, args); });
  return result;
}

/// Adds to a gradient in fp32, as between micro-batches.
inline GpuCase embedding_backward(DType dtype, std::int64_t rows, std::int64_t columns,
                                  std::int64_t table_rows) {
  GpuCase result("embedding_backward", dtype, rows, columns);
  const EmbeddingBackward args{.dy = result.read(dtype, rows * columns),
                               .ids = result.indices(rows, table_rows, 7),
                               .dtable = result.aside(DType::fp32, table_rows * columns),
                               .gradient_type = DType::fp32,
                               .accumulate = true,
                               .rows = rows,
                               .columns = columns,
                               .table_rows = table_rows,
                               .dtype = dtype};
  result.least(2 * std::min(rows, table_rows) * columns * static_cast<std::int64_t>(sizeof(float)));
  result.calls([=](const Stream& stream) { kernels::embedding_backward(stream, args); });
  return result;
}

/// Forward, then backward if there is more than one query; causal, on heads of 64. Rows are
/// queries.
inline GpuCase attention(DType dtype, std::int64_t queries, std::int64_t keys) {
  constexpr std::int64_t kHeads = 2, kHead = 64, kRow = kHeads * kHead;
  GpuCase result("attention", dtype, queries, kRow);
  const AttentionForward forward{.q = result.read(dtype, queries * kRow),
                                 .k = result.read(dtype, keys * kRow),
                                 .v = result.read(dtype, keys * kRow),
                                 .y = result.write(dtype, queries * kRow),
                                 .lse = result.write_floats(queries * kHeads),
                                 .batch = 1,
                                 .heads = kHeads,
                                 .kv_heads = kHeads,
                                 .queries = queries,
                                 .keys = keys,
                                 .head_dim = kHead,
                                 .q_row_stride = kRow,
                                 .k_row_stride = kRow,
                                 .v_row_stride = kRow,
                                 .y_row_stride = kRow,
                                 .q_batch_stride = queries * kRow,
                                 .k_batch_stride = keys * kRow,
                                 .v_batch_stride = keys * kRow,
                                 .y_batch_stride = queries * kRow,
                                 .scale = 0.125f,
                                 .dtype = dtype};
  const AttentionBackward backward{.forward = forward,
                                   .dy = result.read(dtype, queries * kRow),
                                   .dq = result.write(dtype, queries * kRow),
                                   .dk = result.write(dtype, keys * kRow),
                                   .dv = result.write(dtype, keys * kRow)};
  result.calls([=](const Stream& stream) {
    kernels::attention_forward(stream, forward);
    if (queries > 1) kernels::attention_backward(stream, backward);
  });
  return result;
}

}  // namespace tessera::testing::gpu_cases
