// SPDX-License-Identifier: Apache-2.0
// Attention of GPT-2 124M, forward and backward, against the rate of oneDNN's fp32 product. Work is
// what the causal mask and the rows' lengths leave: 2 products forward; 5 backward, the recomputed
// scores included.
#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "tessera/base/random.hpp"
#include "tessera/kernels/attention.hpp"

#include "onednn_reference.hpp"
#include "support/bench.hpp"

namespace {

using namespace tessera;

struct Problem {
  const char* name;
  std::int64_t batch, queries, keys;
  float dropout = 0;
  std::vector<std::int32_t> lengths = {};

  /// Pairs of a query and a key that it sees, in all rows.
  double visible() const {
    const auto of_row = [](double row_queries, double row_keys) {
      return row_queries * (row_keys - 0.5 * (row_queries - 1));
    };
    if (lengths.empty())
      return static_cast<double>(batch) *
             of_row(static_cast<double>(queries), static_cast<double>(keys));
    double sum = 0;
    for (const std::int32_t length : lengths) sum += of_row(length, length);
    return sum;
  }
};

// Arrays of one call: q, k, v in one projection, as the model has them.
struct Arrays {
  static constexpr std::int64_t kHeads = 12, kHeadDim = 64, kWidth = kHeads * kHeadDim;

  Arrays(const Problem& p, DType dtype) {
    const std::size_t size = size_of(dtype);
    const auto rows = static_cast<std::size_t>(p.batch * p.keys);
    std::vector<float> values(rows * 3 * kWidth);
    const RandomStream random(1, 0);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = random.uniform(i) - 0.5f;
    qkv.resize(values.size() * size);
    convert(values.data(), DType::fp32, qkv.data(), dtype, values.size());
    dqkv = qkv;
    y.resize(rows * kWidth * size);
    dy = y;
    convert(values.data(), DType::fp32, dy.data(), dtype, rows * kWidth);
    lse.resize(static_cast<std::size_t>(p.batch * kHeads * p.queries));
    kernels::AttentionForward& f = args.forward;
    f = {.q = qkv.data(),
         .k = qkv.data() + kWidth * size,
         .v = qkv.data() + 2 * kWidth * size,
         .y = y.data(),
         .lse = lse.data(),
         .batch = p.batch,
         .heads = kHeads,
         .kv_heads = kHeads,
         .queries = p.queries,
         .keys = p.keys,
         .head_dim = kHeadDim,
         .q_row_stride = 3 * kWidth,
         .k_row_stride = 3 * kWidth,
         .v_row_stride = 3 * kWidth,
         .y_row_stride = kWidth,
         .q_batch_stride = p.keys * 3 * kWidth,
         .k_batch_stride = p.keys * 3 * kWidth,
         .v_batch_stride = p.keys * 3 * kWidth,
         .y_batch_stride = p.keys * kWidth,
         .scale = 0.125f,
         .causal = true,
         .dtype = dtype,
         .dropout = p.dropout,
         .lengths = p.lengths.empty() ? nullptr : p.lengths.data()};
    args.dy = dy.data();
    args.dq = dqkv.data();
    args.dk = dqkv.data() + kWidth * size;
    args.dv = dqkv.data() + 2 * kWidth * size;
  }

  std::vector<unsigned char> qkv, dqkv, y, dy;
  std::vector<float> lse;
  kernels::AttentionBackward args{};
};

void measure_problem(bench::Program& program, bench::OnednnReference& reference, const Problem& p,
                     DType dtype, double share) {
  const std::string name = std::string(to_string(dtype)) + " " + p.name;
  if (!program.wants(name)) return;
  Arrays arrays(p, dtype);
  const double product = 2.0 * static_cast<double>(Arrays::kWidth) * p.visible();
  kernels::attention_forward({}, arrays.args.forward);
  program.measure(
      {.name = name,
       .variants = {reference.variant(),
                    {.name = "forward",
                     .run = [&] { kernels::attention_forward({}, arrays.args.forward); },
                     .work = 2 * product},
                    {.name = "backward",
                     .run = [&] { kernels::attention_backward({}, arrays.args); },
                     .work = 5 * product}},
       .unit = "flop"},
      share);
}

}  // namespace

int main(int argc, char** argv) {
  bench::Program program("kernels_attention", argc, argv);
  const Problem problems[] = {
      {"4 x 256 tokens", 4, 256, 256},
      {"4 x 256 tokens, dropout", 4, 256, 256, 0.1f},
      {"1 x 1024 tokens", 1, 1024, 1024},
      {"4 x 512 tokens", 4, 512, 512},
      {"4 x 512 tokens, 512 256 128 64 of them filled", 4, 512, 512, 0, {512, 256, 128, 64}},
      {"one token after 1023", 1, 1, 1024}};
  bench::OnednnReference reference(DType::fp32);
  for (const DType dtype : {DType::bf16, DType::fp32})
    for (const Problem& p : problems)
      measure_problem(program, reference, p, dtype, 0.5 / std::size(problems));
  return program.finish();
}
