// SPDX-License-Identifier: Apache-2.0
// What splitting the layers costs: steps of one GPT-2 on all ranks of a tensor axis, in turns with
// the same steps on one rank that has their threads.
#include <memory>
#include <string>

#include "tessera/base/cpu_features.hpp"
#include "tessera/comm/mesh.hpp"
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
    R"({"model_type": "gpt2", "n_layer": 4, "n_embd": 768, "n_head": 12, "n_positions": 256,
        "vocab_size": 8192, "embd_pdrop": 0, "attn_pdrop": 0, "resid_pdrop": 0})";

class Training {
 public:
  Training(Communicator& data, const nn::TensorAxis& tensor, Communicator& everyone) {
    nn::ModelOptions model;
    model.dtype = DType::bf16;
    model.tensor = tensor;
    model_ = nn::make_model(kModel, model);
    engine::EngineOptions options;
    options.zero.stage = 1;
    options.zero.dtype = DType::bf16;
    options.zero.gradient_clipping = 1;
    options.zero.everyone = &everyone;
    engine_ = std::make_unique<engine::Engine>(data, *model_, options);
    parallel::initialize(*model_, engine_->optimizer(), 1234);
  }
  void step(nn::Batch& batch) { engine_->train_step(std::span(&batch, 1)); }

 private:
  std::unique_ptr<nn::Model> model_;
  std::unique_ptr<engine::Engine> engine_;
};

void measure(Program& program, Communicator& world) {
  Mesh mesh(world, MeshShape{1, 1, 1, world.size()});
  const auto self = world.split(world.rank(), 0, "alone");
  Communicator& group = mesh.group("tensor");
  Training split(mesh.group("data"), {group.size(), group.rank(), &group}, group);
  Training alone(*self, {}, *self);
  nn::Batch batch = some_tokens(kRows, kPositions, 8192);
  Case steps;
  steps.name = "gpt2 35M bf16";
  steps.work = static_cast<double>(kRows * kPositions);
  steps.unit = "token";
  const std::string one = "1 rank x " + std::to_string(world.size()) + " threads";
  const std::string all = "tensor " + std::to_string(world.size());
  steps.variants.push_back({.name = one, .run = [&] {
                              set_threads(world.size());
                              if (world.rank() == 0) alone.step(batch);
                              world.barrier();
                            }});
  steps.variants.push_back({.name = all, .run = [&] {
                              set_threads(1);
                              split.step(batch);
                            }});
  const CaseResult result = program.measure(steps, 1);
  if (!result.variants.empty())
    program.value("speed of the tensor axis over one rank", result[all].speed_ratio);
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera::bench;
  return run_on_ranks("engine_tensor", argc, argv, measure);
}
