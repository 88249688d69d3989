// SPDX-License-Identifier: Apache-2.0
// Kernels of a GPT-2 1.5B training step on a GPU: memory-bound ones against a copy, products and
// attention against cuBLASLt's best algorithm on a large square product. No cases without a GPU.
#include <string>
#include <utility>
#include <vector>

#include "tessera/device/cuda.hpp"
#include "tessera/kernels/activation.hpp"
#include "tessera/kernels/adamw.hpp"
#include "tessera/kernels/attention.hpp"
#include "tessera/kernels/cross_entropy.hpp"
#include "tessera/kernels/elementwise.hpp"
#include "tessera/kernels/gemm.hpp"
#include "tessera/kernels/layer_norm.hpp"

#include "support/bench.hpp"
#include "support/gpu_arrays.hpp"

namespace {

using namespace tessera;

constexpr std::int64_t kTokens = 8192, kWidth = 1600, kVocabulary = 50257, kLogitColumns = 50304;
constexpr std::int64_t kHeads = 25, kHeadDim = 64, kPositions = 1024;
constexpr std::int64_t kSquare = 8192;

void measure_bandwidth(bench::Program& program, Device device, double share) {
  if (!program.wants("bandwidth")) return;
  bench::GpuArrays gpu(device);
  const Stream& stream = gpu.stream();
  constexpr std::int64_t kRowElements = kTokens * kWidth, kInner = 4 * kRowElements;
  constexpr std::int64_t kParameters = 64 << 20, kLogits = 1024 * kLogitColumns;
  void* const from = gpu.random(kInner, DType::bf16);
  void* const to = gpu.empty(kInner, DType::bf16);
  const kernels::ActivationForward gelu{.x = from,
                                        .y = to,
                                        .count = kInner,
                                        .function = kernels::Activation::gelu_tanh,
                                        .dtype = DType::bf16};
  const kernels::LayerNormForward norm{.x = from,
                                       .weight = gpu.random(kWidth, DType::bf16),
                                       .bias = gpu.random(kWidth, DType::bf16),
                                       .y = to,
                                       .mean = static_cast<float*>(gpu.empty(kTokens, DType::fp32)),
                                       .rstd = static_cast<float*>(gpu.empty(kTokens, DType::fp32)),
                                       .rows = kTokens,
                                       .columns = kWidth,
                                       .epsilon = 1e-5f,
                                       .dtype = DType::bf16};
  const kernels::AdamW adamw{
      .parameter = gpu.random(kParameters, DType::bf16),
      .low = static_cast<std::uint16_t*>(gpu.random(kParameters, DType::bf16)),
      .exp_avg = static_cast<float*>(gpu.random(kParameters, DType::fp32)),
      .exp_avg_sq = static_cast<float*>(gpu.random(kParameters, DType::fp32)),
      .gradient = gpu.random(kParameters, DType::bf16),
      .gradient_type = DType::bf16,
      .lr = 1e-4f,
      .beta1 = 0.9f,
      .beta2 = 0.95f,
      .epsilon = 1e-8f,
      .weight_decay = 0.1f,
      .correction1 = 0.1f,
      .correction2 = 0.05f,
      .count = kParameters};
  std::vector<std::int32_t> targets(1024);
  for (std::size_t i = 0; i < targets.size(); ++i) targets[i] = static_cast<std::int32_t>(i * 37);
  auto* const ids = static_cast<std::int32_t*>(gpu.empty(1024, DType::int32));
  stream.copy(ids, targets.data(), targets.size() * sizeof(std::int32_t));
  void* const logits = gpu.random(kLogits, DType::bf16);
  const kernels::CrossEntropy entropy{.logits = logits,
                                      .targets = ids,
                                      .losses = static_cast<float*>(gpu.empty(1024, DType::fp32)),
                                      .dlogits = logits,
                                      .scale = 1e-3f,
                                      .rows = 1024,
                                      .columns = kLogitColumns,
                                      .valid_columns = kVocabulary,
                                      .dtype = DType::bf16};
  program.measure(
      {.name = "bandwidth",
       .variants = {gpu.variant(
                        "copy", [&] { stream.copy(to, from, kInner * 2); }, 4.0 * kInner),
                    gpu.variant(
                        "gelu", [&] { kernels::activation_forward(stream, gelu); }, 4.0 * kInner),
                    gpu.variant(
                        "layer norm", [&] { kernels::layer_norm_forward(stream, norm); },
                        4.0 * kRowElements),
                    gpu.variant(
                        "add", [&] { kernels::add(stream, from, from, to, kInner, DType::bf16); },
                        4.0 * kInner),
                    gpu.variant(
                        "adamw, split master", [&] { kernels::adamw(stream, adamw); },
                        26.0 * kParameters),
                    gpu.variant(
                        "cross entropy", [&] { kernels::cross_entropy(stream, entropy); },
                        4.0 * kLogits)},
       .unit = "byte"},
      share);
}

bench::Variant product(const bench::GpuArrays& gpu, const std::string& name, std::int64_t m,
                       std::int64_t n, std::int64_t k, bool measured, void* a, void* b, void* c) {
  kernels::Gemm args{.a = a, .b = b, .c = c, .m = m, .n = n, .k = k};
  args.input_type = args.output_type = DType::bf16;
  const double work =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  return gpu.variant(
      name,
      [stream = gpu.stream(), args, measured] {
        kernels::set_gemm_options({.measure = measured});
        kernels::gemm(stream, args);
      },
      work);
}

void measure_arithmetic(bench::Program& program, Device device, double share) {
  if (!program.wants("arithmetic")) return;
  bench::GpuArrays gpu(device);
  void* const a = gpu.random(kSquare * kSquare, DType::bf16);
  void* const b = gpu.random(kSquare * kSquare, DType::bf16);
  void* const c = gpu.empty(kSquare * kSquare, DType::bf16);
  constexpr std::int64_t kBatch = kTokens / kPositions;
  auto* const qkv = static_cast<bf16*>(gpu.random(kTokens * 3 * kWidth, DType::bf16));
  auto* const dqkv = static_cast<bf16*>(gpu.empty(kTokens * 3 * kWidth, DType::bf16));
  const kernels::AttentionForward forward{
      .q = qkv,
      .k = qkv + kWidth,
      .v = qkv + 2 * kWidth,
      .y = gpu.empty(kTokens * kWidth, DType::bf16),
      .lse = static_cast<float*>(gpu.empty(kBatch * kHeads * kPositions, DType::fp32)),
      .batch = kBatch,
      .heads = kHeads,
      .kv_heads = kHeads,
      .queries = kPositions,
      .keys = kPositions,
      .head_dim = kHeadDim,
      .q_row_stride = 3 * kWidth,
      .k_row_stride = 3 * kWidth,
      .v_row_stride = 3 * kWidth,
      .y_row_stride = kWidth,
      .q_batch_stride = kPositions * 3 * kWidth,
      .k_batch_stride = kPositions * 3 * kWidth,
      .v_batch_stride = kPositions * 3 * kWidth,
      .y_batch_stride = kPositions * kWidth,
      .scale = 0.125f,
      .causal = true,
      .dtype = DType::bf16};
  const kernels::AttentionBackward backward{.forward = forward,
                                            .dy = gpu.random(kTokens * kWidth, DType::bf16),
                                            .dq = dqkv,
                                            .dk = dqkv + kWidth,
                                            .dv = dqkv + 2 * kWidth};
  // What the causal mask leaves of one product.
  const double visible = static_cast<double>(kTokens * kWidth) * (kPositions + 1);
  const Stream& stream = gpu.stream();
  // As a run would (by cuDNN, where the build has it), and by our own kernels.
  const auto attention = [&](const std::string& pass, double flops, auto call) {
    const auto by = [call](kernels::AttentionKernels kernels) {
      kernels::set_attention_kernels(kernels);
      call();
      kernels::set_attention_kernels(kernels::AttentionKernels::automatic);
    };
    return std::pair{
        gpu.variant(
            "attention " + pass, [by] { by(kernels::AttentionKernels::automatic); }, flops),
        gpu.variant(
            "attention " + pass + ", own", [by] { by(kernels::AttentionKernels::own); }, flops)};
  };
  const auto [run_forward, own_forward] =
      attention("forward", 2 * visible, [&] { kernels::attention_forward(stream, forward); });
  const auto [run_backward, own_backward] =
      attention("backward", 5 * visible, [&] { kernels::attention_backward(stream, backward); });
  program.measure(
      {.name = "arithmetic",
       .variants =
           {product(gpu, "cuBLASLt's best, 8192 cubed", kSquare, kSquare, kSquare, true, a, b, c),
            product(gpu, "product 8192 x 4800 x 1600", kTokens, 3 * kWidth, kWidth, false, a, b, c),
            product(gpu, "product 8192 x 4800 x 1600, measured", kTokens, 3 * kWidth, kWidth, true,
                    a, b, c),
            product(gpu, "product 8192 x 6400 x 1600", kTokens, 4 * kWidth, kWidth, false, a, b, c),
            product(gpu, "product 8192 x 1600 x 6400", kTokens, kWidth, 4 * kWidth, false, a, b, c),
            run_forward, own_forward, run_backward, own_backward},
       .unit = "flop"},
      share);
}

}  // namespace

int main(int argc, char** argv) {
  bench::Program program("kernels_gpu", argc, argv);
  if (cuda_device_count() == 0) return program.finish();
  const Device device{DeviceType::cuda, 0};
  measure_bandwidth(program, device, 0.5);
  measure_arithmetic(program, device, 0.5);
  return program.finish();
}
