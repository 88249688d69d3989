// SPDX-License-Identifier: Apache-2.0
// A network of the program's own layers in the stages of a pipeline:
//   mpirun -n 4 piped_layers [pipeline [schedule [partition]]]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "tessera/autograd/activation.hpp"
#include "tessera/autograd/dropout.hpp"
#include "tessera/comm/mesh.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/nn/sequential.hpp"
#include "tessera/parallel/model_state.hpp"
#include "tessera/parallel/pipeline_stages.hpp"

using namespace tessera;

constexpr int kTokens = 32, kWidth = 24, kBlocks = 6;
constexpr int kMicroBatches = 4, kRows = 8, kLength = 16, kSteps = 120;

/// x + gelu(W x + b): a layer of the program's own, made of another one.
class Block : public nn::Layer {
 public:
  std::vector<nn::NamedParameter> parameters() override { return linear_.parameters(); }
  autograd::Value forward(autograd::Tape& tape, const autograd::Value& x,
                          const nn::Batch& batch) override {
    autograd::Value y = linear_.forward(tape, x, batch);
    y = autograd::activation(tape, y, kernels::Activation::gelu);
    return autograd::dropout_add(tape, x, std::move(y), {});
  }

 private:
  nn::Linear linear_{kWidth, kWidth};
};

/// Counting: after token t comes t + 1.
std::vector<nn::Batch> counting(int step, int data_rank) {
  std::vector<nn::Batch> batches(kMicroBatches);
  for (int m = 0; m < kMicroBatches; ++m) {
    nn::Batch& batch = batches[m];
    batch.first_row = (data_rank * kMicroBatches + m) * kRows;
    batch.ids = Tensor({kRows, kLength}, DType::int32);
    batch.targets = Tensor({kRows, kLength}, DType::int32);
    for (int i = 0; i < kRows * kLength; ++i) {
      const int token = (i * 7 + step * 5 + m * 3 + data_rank) % kTokens;
      batch.ids.as<std::int32_t>()[i] = token;
      batch.targets.as<std::int32_t>()[i] = (token + 1) % kTokens;
    }
  }
  return batches;
}

int train(int pipeline, const std::string& schedule, const std::string& partition) {
  Runtime runtime;
  Mesh mesh(runtime.world(), {.pipeline = pipeline});

  nn::Sequential network({}, DType::int32, nn::cross_entropy());
  network.add<nn::Embedding>("embedding", kTokens, kWidth);
  for (int i = 0; i < kBlocks; ++i) network.add<Block>("block." + std::to_string(i));
  network.add<nn::LayerNorm>("norm", kWidth);
  // The head is the embedding's table, wherever the two lie.
  network.add("head", std::make_unique<nn::Linear>(kWidth, kTokens, false),
              {{"weight", "embedding.weight"}});

  engine::EngineOptions options;
  options.pipeline = parallel::pipeline_kind(schedule);
  options.zero.stage = 1;
  options.zero.rule.lr = 3e-3;
  options.zero.accumulation_steps = kMicroBatches;
  options.zero.everyone = &runtime.world();
  parallel::TieGroups ties;
  if (pipeline > 1) {
    const auto shape =
        parallel::PipelineShape{options.pipeline, pipeline, kMicroBatches}.resolved();
    const auto layers = network.layers();
    const auto cuts =
        parallel::cut_layers(layers, shape.stages(), parallel::StageCut::parse(partition));
    if (runtime.rank() == 0) std::printf("%s\n", parallel::describe_stages(layers, cuts).c_str());
    ties = parallel::take_stages(network, mesh.group("pipeline"), shape, cuts);
  }
  engine::Engine engine(mesh.group("data"), network, options);
  parallel::initialize(network, engine.optimizer(), 1234);

  engine::StepOutcome outcome;
  for (int step = 0; step < kSteps; ++step) {
    auto batches = counting(step, engine.data_rank());
    outcome = engine.train_step(batches);
    if (runtime.rank() == 0 && step % 20 == 0)
      std::printf("step %3d  loss %8.5f\n", step, outcome.loss);
  }
  if (runtime.rank() == 0) std::printf("%d ranks: %.3g\n", runtime.size(), outcome.loss);
  return outcome.loss < 0.1 ? 0 : 1;
}

int main(int argc, char** argv) {
  try {
    return train(argc > 1 ? std::atoi(argv[1]) : 1, argc > 2 ? argv[2] : "1f1b",
                 argc > 3 ? argv[3] : "parameters");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "piped_layers: %s\n", error.what());
    return 1;
  }
}
