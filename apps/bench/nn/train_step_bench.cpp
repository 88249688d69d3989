// SPDX-License-Identifier: Apache-2.0
// One training step of GPT-2 124M (forward, backward, AdamW) on 4 x 256 tokens in bf16 on one rank,
// as a fraction of oneDNN's own rate on a square product, and where its time goes.
#include <string>
#include <vector>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/random.hpp"
#include "tessera/base/timer.hpp"
#include "tessera/kernels/adamw.hpp"
#include "tessera/kernels/split_master.hpp"
#include "tessera/nn/models/gpt2.hpp"

#include "kernels/onednn_reference.hpp"
#include "support/bench.hpp"

namespace {

using namespace tessera;

constexpr std::int64_t kRows = 4, kPositions = 256;

/// A model with everything attached all the time, as a single rank in stage 0 holds it.
class Training {
 public:
  explicit Training(const nn::Gpt2Config& config)
      : model_(config, {.dtype = DType::bf16}), batch_(random_batch(config.vocab_size)) {
    for (const nn::NamedParameter& named : model_.parameters()) add(named);
  }

  void step() {
    autograd::Tape tape(autograd::Recording::on);
    for (State& state : states_) state.parameter->gradient_written = false;
    const autograd::Loss loss = model_.forward_loss(tape, batch_);
    tape.backward();
    update();
  }

  double flops() const { return static_cast<double>(model_.training_flops(kRows, kPositions)); }

 private:
  struct State {
    nn::Parameter* parameter;
    Tensor low, exp_avg, exp_avg_sq;
  };

  static nn::Batch random_batch(std::int64_t vocabulary) {
    nn::Batch batch;
    batch.ids = Tensor(Shape{kRows, kPositions}, DType::int32);
    batch.targets = Tensor(Shape{kRows, kPositions}, DType::int32);
    const RandomStream random(1, 2);
    for (std::int64_t i = 0; i < kRows * kPositions; ++i) {
      const std::uint32_t bits = random.bits(static_cast<std::uint64_t>(i));
      const auto id = static_cast<std::int32_t>(bits % static_cast<std::uint32_t>(vocabulary));
      batch.ids.as<std::int32_t>()[i] = id;
      batch.targets.as<std::int32_t>()[i] = id;
    }
    batch.gradient_scale = 1.0f / static_cast<float>(kRows * kPositions);
    return batch;
  }

  void add(const nn::NamedParameter& named) {
    nn::Parameter& parameter = *named.parameter;
    const Shape& shape = parameter.shape();
    const Tensor start(shape, DType::fp32, {}, Purpose::workspace);
    nn::initialize(parameter, named.name, 1, 0, shape.numel(), start.as<float>());
    State state{&parameter, Tensor(Shape{2 * shape.numel()}, DType::uint8, {}, Purpose::optimizer),
                Tensor::zeros(shape, DType::fp32, {}, Purpose::optimizer),
                Tensor::zeros(shape, DType::fp32, {}, Purpose::optimizer)};
    parameter.value = Tensor(shape, DType::bf16, {}, Purpose::parameters);
    parameter.gradient = Tensor(shape, DType::bf16, {}, Purpose::gradients);
    kernels::split({}, start.as<float>(), parameter.value.as<bf16>(), state.low.as<std::uint16_t>(),
                   shape.numel());
    states_.push_back(std::move(state));
  }

  void update() {
    const autograd::ProfileScope profile("adamw");
    for (State& state : states_)
      kernels::adamw({}, {.parameter = state.parameter->value.data(),
                          .low = state.low.as<std::uint16_t>(),
                          .exp_avg = state.exp_avg.as<float>(),
                          .exp_avg_sq = state.exp_avg_sq.as<float>(),
                          .gradient = state.parameter->gradient.data(),
                          .gradient_type = DType::bf16,
                          .lr = 1e-4f,
                          .beta1 = 0.9f,
                          .beta2 = 0.95f,
                          .epsilon = 1e-8f,
                          .weight_decay = 0.1f,
                          .correction1 = 0.1f,
                          .correction2 = 0.05f,
                          .count = state.parameter->shape().numel()});
  }

  nn::Gpt2 model_;
  nn::Batch batch_;
  std::vector<State> states_;
};

/// Seconds of one more step by kind of operation.
void profile(bench::Program& program, Training& training) {
  autograd::Profiler::clear();
  autograd::Profiler::enable(true);
  const Timer timer;
  training.step();
  const double total = timer.seconds();
  autograd::Profiler::enable(false);
  double named = 0;
  for (const auto& [name, seconds] : autograd::Profiler::seconds()) {
    program.value("profile_s " + name, seconds);
    named += seconds;
  }
  program.value("profile_s everything else", total - named);
  program.value("profile_s total", total);
}

}  // namespace

int main(int argc, char** argv) {
  bench::Program program("nn_train_step", argc, argv);
  const std::string name = "GPT-2 124M, 4 x 256 tokens, bf16";
  if (!program.wants(name)) return program.finish();
  nn::Gpt2Config config;
  config.embd_pdrop = config.attn_pdrop = config.resid_pdrop = 0;
  Training training(config);
  bench::OnednnReference reference(DType::bf16);
  const bench::CaseResult result = program.measure({.name = name,
                                                    .variants = {reference.variant(),
                                                                 {.name = "training step",
                                                                  .run = [&] { training.step(); },
                                                                  .work = training.flops()}},
                                                    .unit = "flop"},
                                                   1.0);
  const bench::VariantResult& step = result["training step"];
  program.value("tokens_per_second", kRows * kPositions / step.median);
  program.value("fraction_of_onednn_rate", step.speed_ratio);
  profile(program, training);
  return program.finish();
}
