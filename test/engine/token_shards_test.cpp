// SPDX-License-Identifier: Apache-2.0
// Tensor ranks that have their own tokens between matrix products: one rank's curve and gradients,
// the bytes that travel, and the memory that is held.
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/device/memory.hpp"

#include "support/mesh_test.hpp"

namespace tessera::test {
namespace {

constexpr nn::Recompute kRecomputations[] = {nn::Recompute::none, nn::Recompute::selective,
                                             nn::Recompute::full};

class TokenShardsTest : public MeshTest {
 protected:
  /// 188 tokens on a rank alone, which 3 ranks cannot share evenly; 94 where two share the rows.
  std::vector<MeshTrial> trials() {
    std::vector<MeshTrial> list;
    for (const MeshShape& mesh : tensor_meshes())
      for (const nn::Recompute recompute : kRecomputations) {
        MeshTrial trial{.mesh = mesh, .stage = 2, .dropout = 0.1, .positions = 47};
        trial.model.recompute = recompute;
        trial.model.sequence_parallel = true;
        list.push_back(trial);
      }
    return list;
  }
};

TEST_F(TokenShardsTest, FollowOneRankToEveryGradient) {
  for (MeshTrial trial : trials()) {
    SCOPED_TRACE(trial.to_string());
    MeshTrainee trainee(world(), tiny_, trial);
    expect_near(train(trainee, trial.steps), train_alone(trial), 1e-5);
    trial.clipping = 0;
    expect_gradients_of_one_rank(trial);
  }
}

TEST_F(TokenShardsTest, FollowTheReferenceCurve) {
  for (const MeshShape& mesh : tensor_meshes()) {
    MeshTrial trial{.mesh = mesh, .stage = 3};
    trial.model.sequence_parallel = true;
    SCOPED_TRACE(trial.to_string());
    MeshTrainee trainee(world(), tiny_, trial);
    expect_near(train(trainee, TinyModel::kSteps), reference_curve(), 1e-5);
  }
}

TEST_F(TokenShardsTest, MicroBatchesAddUp) {
  for (MeshTrial trial : trials()) {
    if (TinyModel::kRows % trial.mesh.data != 0) continue;  // as many on every rank
    for (const int stage : {1, 3}) {
      trial.stage = stage;
      trial.rows_apart = true;
      SCOPED_TRACE(trial.to_string());
      MeshTrainee trainee(world(), tiny_, trial);
      expect_near(train(trainee, trial.steps), train_alone(trial), 1e-5);
    }
  }
}

TEST_F(TokenShardsTest, StagesAndRecomputationGiveTheSameBits) {
  for (const MeshShape& mesh : tensor_meshes())
    for (const DType dtype : {DType::fp32, DType::bf16}) {
      std::map<bool, std::uint64_t> expected;
      for (const int stage : {0, 1, 2, 3})
        for (const nn::Recompute recompute : kRecomputations) {
          MeshTrial trial{.mesh = mesh, .stage = stage, .dropout = 0.1};
          trial.model.dtype = dtype;
          trial.model.recompute = recompute;
          trial.model.sequence_parallel = true;
          SCOPED_TRACE(trial.to_string());
          MeshTrainee trainee(world(), tiny_, trial);
          train(trainee, 2);
          // On GPUs GELU is part of the product before it, but where it is to be repeated alone.
          const bool apart =
              !testing::test_device().is_cpu() && recompute == nn::Recompute::selective;
          const std::uint64_t checksum = trainee.checksum();
          EXPECT_EQ(expected.emplace(apart, checksum).first->second, checksum);
        }
    }
}

/// What the ranks of this rank's tensor group count together in a step.
std::map<std::string, Traffic::Count> traffic_of_a_step(MeshTrainee& trainee) {
  Communicator& group = trainee.mesh().group("tensor");
  group.traffic().reset();
  trainee.step();
  std::map<std::string, Traffic::Count> sent;
  for (const char* operation : {"all_reduce", "all_gather", "reduce_scatter"})
    sent[operation] = group.traffic().count(operation);
  const Traffic::Pause pause(group.traffic());
  for (auto& [operation, count] : sent) {
    count.bytes = group.all_reduce_scalar(count.bytes, Reduction::sum);
    count.messages = group.all_reduce_scalar(count.messages, Reduction::sum);
  }
  return sent;
}

// Over a group each gather or scatter is (t - 1) times the bytes, and t (t - 1) messages.
TEST_F(TokenShardsTest, TrafficEqualsTheFormulas) {
  for (const MeshTrial& trial : trials()) {
    SCOPED_TRACE(trial.to_string());
    MeshTrainee trainee(world(), tiny_, trial);
    const auto sent = traffic_of_a_step(trainee);
    const nn::DecoderSizes& sizes = trainee.sizes();
    const std::int64_t tokens = trainee.batch().ids.numel(), layers = sizes.layers;
    const std::int64_t others = trial.mesh.tensor - 1, state = tokens * sizes.width * 4;
    // Of a layer, two of each in each direction, and the inputs of two products gathered again; of
    // embedding and head one in one direction.
    const std::int64_t again = trial.model.recompute == nn::Recompute::full ? 2 : 0;
    const std::int64_t gathers = (6 + again) * layers + 2, scatters = (4 + again) * layers + 2;
    EXPECT_EQ(sent.at("all_gather").bytes, gathers * others * state);
    EXPECT_EQ(sent.at("all_gather").messages, gathers * others * trial.mesh.tensor);
    EXPECT_EQ(sent.at("reduce_scatter").bytes, scatters * others * state);
    EXPECT_EQ(sent.at("reduce_scatter").messages, scatters * others * trial.mesh.tensor);
    // Weight and bias of each norm; three numbers a token for the loss.
    const std::int64_t norms = (2 * layers + 1) * 2 * sizes.width * 4;
    EXPECT_EQ(sent.at("all_reduce").bytes, 2 * others * (norms + 3 * tokens * 4));
    EXPECT_EQ(sent.at("all_reduce").messages,
              2 * others * trial.mesh.tensor * (2 * layers + 1 + 2));
  }
}

TEST_F(TokenShardsTest, MemoryEqualsTheFormulas) {
  if (!testing::test_device().is_cpu()) GTEST_SKIP() << "the formulas are those of the CPU";
  for (MeshTrial trial : trials())
    for (const double dropout : {0.0, 0.1}) {
      trial.dropout = dropout;
      trial.layers = 6;   // deep enough that what is kept decides
      trial.inner = 128;  // narrow enough that on four ranks the first product decides
      SCOPED_TRACE(trial.to_string());
      MeshTrainee trainee(world(), tiny_, trial);
      train(trainee, 1);
      const std::int64_t tokens = trainee.batch().ids.numel(), batch = 2 * 4 * tokens;
      const std::int64_t rows = tokens / trial.positions;
      MemoryLedger& ledger = memory_ledger(Device{});
      ledger.reset_peaks();
      trainee.step();
      EXPECT_EQ(ledger.peak(Purpose::activations) - batch,
                trainee.model().activation_bytes(rows, trial.positions));
    }
}

TEST_F(TokenShardsTest, ACheckpointFitsAnyMesh) {
  std::vector<MeshTrial> all;
  for (const MeshShape& mesh : tensor_meshes()) {
    all.push_back({.mesh = mesh});
    all.push_back({.mesh = mesh});
    all.back().model.sequence_parallel = true;
  }
  expect_checkpoints_fit(all);
}

TEST_F(TokenShardsTest, EvaluationIsThatOfOneRank) {
  MeshTrainee alone(self(), tiny_, {});
  const double expected = evaluate(alone).loss();
  for (const MeshShape& mesh : tensor_meshes()) {
    MeshTrial trial{.mesh = mesh, .stage = 3};
    trial.model.sequence_parallel = true;
    MeshTrainee trainee(world(), tiny_, trial);
    EXPECT_NEAR(evaluate(trainee).loss(), expected, 1e-6);
  }
}

TEST_F(TokenShardsTest, PartitionedActivationsAddNothing) {
  for (const MeshShape& mesh : tensor_meshes()) {
    MeshTrial trial{.mesh = mesh};
    trial.model.recompute = nn::Recompute::full;
    trial.model.sequence_parallel = true;
    MeshTrainee plain(world(), tiny_, trial);
    trial.model.partition_activations = true;
    MeshTrainee both(world(), tiny_, trial);
    EXPECT_EQ(traffic_of_a_step(both).at("all_gather").bytes,
              traffic_of_a_step(plain).at("all_gather").bytes);
    EXPECT_EQ(both.checksum(), plain.checksum());
    EXPECT_EQ(both.model().activation_bytes(4, 47), plain.model().activation_bytes(4, 47));
  }
}

}  // namespace
}  // namespace tessera::test
