// SPDX-License-Identifier: Apache-2.0
// What the ZeRO stage costs in real training: steps of one GPT-2 in every stage, in turns, on two
// ranks.
#include <array>
#include <memory>
#include <string>

#include "tessera/comm/runtime.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/parallel/model_state.hpp"

#include "engine/some_tokens.hpp"
#include "support/bench.hpp"
#include "support/ranks.hpp"

namespace tessera::bench {
namespace {

constexpr std::int64_t kRows = 4, kPositions = 256;
constexpr const char* kModel =
    R"({"model_type": "gpt2", "n_layer": 6, "n_embd": 384, "n_head": 6, "n_positions": 256,
        "vocab_size": 257, "embd_pdrop": 0, "attn_pdrop": 0, "resid_pdrop": 0})";

struct Training {
  std::unique_ptr<nn::Model> model;
  std::unique_ptr<engine::Engine> engine;
};

Training start(Communicator& world, int stage) {
  Training training;
  nn::ModelOptions model;
  model.dtype = DType::bf16;
  training.model = nn::make_model(kModel, model);
  engine::EngineOptions options;
  options.zero.stage = stage;
  options.zero.dtype = DType::bf16;
  options.zero.gradient_clipping = 1;
  training.engine = std::make_unique<engine::Engine>(world, *training.model, options);
  parallel::initialize(*training.model, training.engine->optimizer(), 1234);
  return training;
}

void measure(Program& program, Communicator& world) {
  std::array<Training, 4> trainings;
  nn::Batch batch = some_tokens(kRows, kPositions, 257);
  Case steps;
  steps.name = "gpt2 10M bf16";
  steps.work = static_cast<double>(kRows * kPositions * world.size());
  steps.unit = "token";
  for (int stage = 0; stage < 4; ++stage) {
    Training& training = trainings[static_cast<std::size_t>(stage)];
    training = start(world, stage);
    steps.variants.push_back({.name = "stage " + std::to_string(stage), .run = [&training, &batch] {
                                training.engine->train_step(std::span(&batch, 1));
                              }});
  }
  const CaseResult result = program.measure(steps, 1);
  for (int stage = 1; stage < 4; ++stage)
    if (!result.variants.empty())
      program.value("time of stage " + std::to_string(stage) + " over stage 0",
                    1 / result["stage " + std::to_string(stage)].speed_ratio);
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera::bench;
  return run_on_ranks("engine_stages", argc, argv, measure);
}
