// SPDX-License-Identifier: Apache-2.0
// Every way of dividing one model over these ranks gives the curve of one rank: a seeded sample of
// the combinations, or with TESSERA_TEST_SWEEP=all all of them.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>
#include <random>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/comm/mesh.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/nn/models/gpt2.hpp"
#include "tessera/parallel/model_state.hpp"
#include "tessera/parallel/pipeline_stages.hpp"

#include "support/gpt2_tiny.hpp"

namespace tessera::test {
namespace {

using parallel::PipelineKind;

constexpr std::int64_t kLayers = 6;
constexpr int kSample = 24, kSteps = 2;

struct Combination {
  MeshShape mesh{1, 1, 1, 1};
  int stage = 0;
  PipelineKind kind = PipelineKind::one_forward_one_backward;
  nn::Recompute recompute = nn::Recompute::none;
  bool dropout = false;

  std::string to_string() const {
    return fmt::format("{}, stage {}, {}, recompute {}, dropout {}", mesh.to_string(), stage,
                       parallel::to_string(kind), static_cast<int>(recompute), dropout);
  }
};

class Trainee {
 public:
  Trainee(Communicator& world, const Gpt2Tiny& tiny, const Combination& how)
      : tiny_(tiny), mesh_(world, how.mesh) {
    nn::Gpt2Config config = nn::Gpt2Config::from_json(tiny.model()->config_json(), false);
    config.embd_pdrop = config.attn_pdrop = config.resid_pdrop = how.dropout ? 0.1 : 0;
    config.n_layer = kLayers;
    nn::ModelOptions options;
    options.recompute = how.recompute;
    options.tensor = {mesh_.size("tensor"), mesh_.coordinate("tensor"), &mesh_.group("tensor")};
    options.sequence.size = mesh_.size("sequence");
    options.sequence.rank = mesh_.coordinate("sequence");
    options.sequence.group = &mesh_.group("sequence");
    model_ = std::make_unique<nn::Gpt2>(config, options);
    micro_batches_ = static_cast<int>(Gpt2Tiny::kRows) / mesh_.size("data");
    if (how.mesh.pipeline > 1) take_stages(how.kind);
    engine::EngineOptions engine;
    engine.zero.stage = how.stage;
    engine.zero.rule.lr = 0.002;
    engine.groups.weight_decay = 0.1;
    engine.zero.gradient_clipping = 1.0;
    engine.zero.accumulation_steps = micro_batches_;
    engine.zero.everyone = &mesh_.group("pipeline+data+sequence+tensor");
    engine.pipeline = how.kind;
    engine_.emplace(mesh_.group("data+sequence"), *model_, engine);
    parallel::initialize(*model_, engine_->optimizer(), 7);
  }

  engine::StepOutcome step() {
    const int first = engine_->data_rank() * micro_batches_;
    std::vector<nn::Batch> micro;
    for (int j = 0; j < micro_batches_; ++j)
      micro.push_back(tiny_.batch(engine_->step(), first + j, 1));
    return engine_->train_step(micro);
  }

 private:
  void take_stages(PipelineKind kind) {
    const auto shape = parallel::PipelineShape{kind, mesh_.size("pipeline"), 1, 0}.resolved();
    Communicator& line = mesh_.group("pipeline");
    const auto cuts = parallel::cut_layers(model_->layers(), shape.stages(), {});
    nn::PipelineAxis axis = parallel::pipeline_axis(shape, cuts, line.rank());
    ends_ = parallel::make_ends(line, axis);
    axis.group = &line;
    axis.ends = ends_.get();
    model_->take_stages(axis);
  }

  const Gpt2Tiny& tiny_;
  Mesh mesh_;
  std::unique_ptr<Communicator> ends_;
  std::unique_ptr<nn::Gpt2> model_;
  int micro_batches_ = 1;
  std::optional<engine::Engine> engine_;
};

// All meshes of the ranks that heads, layers and rows allow.
std::vector<MeshShape> meshes(int ranks) {
  std::vector<MeshShape> list;
  for (const int data : {1, 2, 4})
    for (const int tensor : {1, 2, 3, 4})
      for (const int sequence : {1, 2, 3, 4})
        for (const int pipeline : {1, 2, 3, 4})
          if (data * tensor * sequence * pipeline == ranks && tensor * sequence <= 4)
            list.push_back({pipeline, data, sequence, tensor});
  return list;
}

std::vector<PipelineKind> kinds(int pipeline, int stage) {
  if (pipeline == 1) return {PipelineKind::one_forward_one_backward};
  if (stage >= 2) return {PipelineKind::gpipe, PipelineKind::one_forward_one_backward};
  return parallel::pipeline_kinds();
}

std::vector<Combination> combinations(int ranks) {
  std::vector<Combination> list;
  for (const MeshShape& mesh : meshes(ranks))
    for (const int stage : {0, 1, 2, 3})
      for (const PipelineKind kind : kinds(mesh.pipeline, stage))
        for (const auto recompute :
             {nn::Recompute::none, nn::Recompute::selective, nn::Recompute::full})
          for (const bool dropout : {false, true})
            list.push_back({mesh, stage, kind, recompute, dropout});
  const char* mode = std::getenv("TESSERA_TEST_SWEEP");
  if (mode != nullptr && std::string(mode) == "all") return list;
  std::shuffle(list.begin(), list.end(), std::mt19937(static_cast<unsigned>(ranks)));
  list.resize(std::min<std::size_t>(list.size(), kSample));
  return list;
}

TEST(MeshSweepTest, EveryCombinationFollowsOneRank) {
  set_threads(1);
  Runtime runtime;
  Communicator& world = runtime.world();
  const Gpt2Tiny tiny;
  const auto alone = world.split(world.rank(), 0, "alone");
  std::map<bool, std::vector<engine::StepOutcome>> expected;
  for (const bool dropout : {false, true}) {
    Combination one;
    one.dropout = dropout;
    Trainee trainee(*alone, tiny, one);
    for (int i = 0; i < kSteps; ++i) expected[dropout].push_back(trainee.step());
  }
  for (const Combination& how : combinations(world.size())) {
    SCOPED_TRACE(how.to_string());
    Trainee trainee(world, tiny, how);
    for (const engine::StepOutcome& wanted : expected[how.dropout]) {
      const engine::StepOutcome found = trainee.step();
      EXPECT_NEAR(found.loss, wanted.loss, 1e-5);
      EXPECT_NEAR(found.gradient_norm, wanted.gradient_norm, 1e-4 * wanted.gradient_norm);
    }
  }
}

}  // namespace
}  // namespace tessera::test
