// SPDX-License-Identifier: Apache-2.0
// Every way of dividing a model over these ranks gives the curve of one rank: of GPT-2 and of
// Llama, whose two key heads may be fewer than ranks, a seeded sample of the combinations, or with
// TESSERA_TEST_SWEEP=all all of them.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/mesh_test.hpp"

namespace tessera::test {
namespace {

using nn::SequenceAttention;
using parallel::PipelineKind;

constexpr int kSample = 16;

class MeshSweepTest : public MeshTest, public ::testing::WithParamInterface<const char*> {
 protected:
  MeshSweepTest() : MeshTest(std::string(GetParam()) + "-tiny") {}
  bool is_possible(const MeshTrial& trial) const {
    // Ulysses gives every rank whole groups of heads.
    return GetParam() != std::string("llama") ||
           trial.model.sequence.attention != SequenceAttention::ulysses ||
           trial.mesh.tensor * trial.mesh.sequence <= 2;
  }
};
INSTANTIATE_TEST_SUITE_P(Models, MeshSweepTest, ::testing::Values("gpt2", "llama"),
                         [](const auto& model) { return std::string(model.param); });

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

std::vector<PipelineKind> kinds(int pipeline) {
  if (pipeline == 1) return {PipelineKind::one_forward_one_backward};
  return parallel::pipeline_kinds();
}

std::vector<SequenceAttention> attentions(int sequence) {
  if (sequence == 1) return {SequenceAttention::automatic};
  return {SequenceAttention::ulysses, SequenceAttention::ring};
}

std::vector<nn::ModelOptions> model_options(const MeshShape& mesh) {
  std::vector<nn::ModelOptions> list;
  for (const auto attention : attentions(mesh.sequence))
    for (const auto& [recompute, every] : {std::pair{nn::Recompute::none, 1},
                                           {nn::Recompute::selective, 1},
                                           {nn::Recompute::full, 1},
                                           {nn::Recompute::full, 2}})
      for (const bool token_shards : {false, true})
        if (!token_shards || mesh.tensor > 1)
          list.push_back({.recompute = recompute,
                          .recompute_every = every,
                          .sequence_parallel = token_shards,
                          .sequence = {.attention = attention}});
  return list;
}

std::vector<MeshTrial> combinations(int ranks) {
  std::vector<MeshTrial> list;
  for (const MeshShape& mesh : meshes(ranks))
    for (const int stage : {0, 1, 2, 3})
      for (const PipelineKind kind : kinds(mesh.pipeline))
        for (const nn::ModelOptions& model : model_options(mesh))
          for (const double dropout : {0.0, 0.1})
            list.push_back(
                {.mesh = mesh, .stage = stage, .kind = kind, .model = model, .dropout = dropout});
  const char* mode = std::getenv("TESSERA_TEST_SWEEP");
  if (mode != nullptr && std::string(mode) == "all") return list;
  std::shuffle(list.begin(), list.end(), std::mt19937(static_cast<unsigned>(ranks)));
  list.resize(std::min<std::size_t>(list.size(), kSample));
  return list;
}

TEST_P(MeshSweepTest, EveryCombinationFollowsOneRank) {
  const auto usual = [](MeshTrial trial) {
    trial.rows_apart = true;
    trial.layers = 6;
    trial.steps = 2;
    return trial;
  };
  std::map<double, Curve> expected;
  for (const double dropout : {0.0, 0.1})
    expected[dropout] = train_alone(usual({.dropout = dropout}));
  for (const MeshTrial& trial : combinations(world().size())) {
    if (!is_possible(trial)) continue;
    SCOPED_TRACE(trial.to_string());
    MeshTrainee trainee(world(), tiny_, usual(trial));
    expect_near(train(trainee, 2), expected.at(trial.dropout), 1e-5);
  }
}

}  // namespace
}  // namespace tessera::test
