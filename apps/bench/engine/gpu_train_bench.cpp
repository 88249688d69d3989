// SPDX-License-Identifier: Apache-2.0
// Training steps of GPT-2 124M and 1.5B in bf16 on GPUs: tokens/s, and their arithmetic as a
// fraction of cuBLASLt's best rate on a large square product (which no step can exceed). No cases
// without a GPU.
#include <memory>
#include <string>

#include <fmt/format.h>

#include "tessera/comm/runtime.hpp"
#include "tessera/engine/device_choice.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/kernels/gemm.hpp"
#include "tessera/parallel/model_state.hpp"

#include "support/bench.hpp"
#include "support/gpu_arrays.hpp"
#include "support/ranks.hpp"

namespace tessera::bench {
namespace {

constexpr std::int64_t kPositions = 1024, kSquare = 8192;

struct Size {
  const char* name;
  std::int64_t layers, width, heads, rows;
  nn::Recompute recompute;
};

class Training {
 public:
  Training(Communicator& world, Device device, const Size& size) : rows_(size.rows) {
    const std::string config = fmt::format(
        R"({{"model_type": "gpt2", "n_layer": {}, "n_embd": {}, "n_head": {}, "n_positions": {},
            "vocab_size": 50257, "embd_pdrop": 0, "attn_pdrop": 0, "resid_pdrop": 0}})",
        size.layers, size.width, size.heads, kPositions);
    model_ = nn::make_model(config, {.dtype = DType::bf16, .recompute = size.recompute});
    engine::EngineOptions options;
    options.zero.device = device;
    options.zero.stage = world.size() > 1 ? 2 : 0;
    options.zero.dtype = DType::bf16;
    options.zero.gradient_clipping = 1;
    engine_ = std::make_unique<engine::Engine>(world, *model_, options);
    parallel::initialize(*model_, engine_->optimizer(), 1234);
    batch_.ids = Tensor({rows_, kPositions}, DType::int32);
    batch_.targets = Tensor({rows_, kPositions}, DType::int32);
    for (std::int64_t i = 0; i < rows_ * kPositions; ++i) {
      batch_.ids.as<std::int32_t>()[i] = static_cast<std::int32_t>(i * 7919 % 50257);
      batch_.targets.as<std::int32_t>()[i] = static_cast<std::int32_t>((i + 1) * 7919 % 50257);
    }
  }
  /// A few steps as a run makes them, each started before the one before it is finished.
  static constexpr int kSteps = 4;
  void steps() {
    for (int i = 0; i < kSteps; ++i) {
      engine_->start_step(std::span(&batch_, 1));
      finish(engine_->steps_ahead());
    }
    finish(0);
  }
  double flops() const {
    return kSteps * static_cast<double>(model_->training_flops(rows_, kPositions));
  }
  double tokens() const { return static_cast<double>(kSteps * rows_ * kPositions); }

 private:
  void finish(int most) {
    while (engine_->unfinished_steps() > most) engine_->finish_step();
  }

  std::int64_t rows_;
  std::unique_ptr<nn::Model> model_;
  std::unique_ptr<engine::Engine> engine_;
  nn::Batch batch_;
};

Variant square_product(GpuArrays& gpu) {
  kernels::Gemm args{.a = gpu.random(kSquare * kSquare, DType::bf16),
                     .b = gpu.random(kSquare * kSquare, DType::bf16),
                     .c = gpu.empty(kSquare * kSquare, DType::bf16),
                     .m = kSquare,
                     .n = kSquare,
                     .k = kSquare};
  args.input_type = args.output_type = DType::bf16;
  const auto run = [args, stream = gpu.stream()] {
    kernels::set_gemm_options({.measure = true});
    kernels::gemm(stream, args);
    kernels::set_gemm_options({});
  };
  return gpu.variant("cuBLASLt's best, 8192 cubed", run, 2.0 * kSquare * kSquare * kSquare);
}

void measure(Program& program, Communicator& world, Device device, const Size& size) {
  if (!program.wants(size.name)) return;
  Training training(world, device, size);
  GpuArrays gpu(device);
  const CaseResult result = program.measure({.name = size.name,
                                             .variants = {square_product(gpu),
                                                          {.name = "training steps",
                                                           .run = [&] { training.steps(); },
                                                           .work = training.flops()}},
                                             .unit = "flop"},
                                            0.5);
  const VariantResult& step = result["training steps"];
  const double ranks = world.size();
  program.value(fmt::format("{}: tokens_per_second", size.name),
                ranks * training.tokens() / step.median);
  program.value(fmt::format("{}: fraction_of_cublaslt", size.name), step.speed_ratio);
  program.value(fmt::format("{}: peak_bytes", size.name),
                static_cast<double>(memory_ledger(device).peak_total()));
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera;
  Runtime runtime;
  Communicator& world = runtime.world();
  bench::Program program("engine_gpu_train", argc, argv, bench::ranks_of(world));
  const Device device = engine::choose_device(runtime, "auto");
  if (device.is_cpu()) return program.finish();
  bench::measure(program, world, device,
                 {"GPT-2 124M, 16 x 1024 tokens", 12, 768, 12, 16, nn::Recompute::none});
  bench::measure(program, world, device,
                 {"GPT-2 1.5B, 8 x 1024 tokens", 48, 1600, 25, 8, nn::Recompute::selective});
  return program.finish();
}
