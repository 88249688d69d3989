// SPDX-License-Identifier: Apache-2.0
// Training with sequences that ranks share: PyTorch's curve, one rank's curve, with and without a
// tensor axis beside it, the bytes that travel, and checkpoints that know nothing of the mesh.
#include <optional>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/device/memory.hpp"

#include "support/expect_error.hpp"
#include "support/mesh_test.hpp"

namespace tessera::test {
namespace {

constexpr std::int64_t kHeads = 4;

class SequenceTest : public MeshTest {
 protected:
  /// Meshes of all ranks with a sequence axis that the model and its rows allow.
  std::vector<MeshShape> meshes() {
    std::vector<MeshShape> list;
    for (int tensor = 1; tensor <= kHeads; ++tensor)
      for (int sequence = 2; sequence <= kHeads / tensor; ++sequence) {
        const int inside = tensor * sequence, data = world().size() / inside;
        if (world().size() % inside == 0 && data <= Gpt2Tiny::kRows)
          list.push_back({1, data, sequence, tensor});
      }
    return list;
  }
};

TEST_F(SequenceTest, FollowsTheReferenceCurveInEveryStage) {
  for (const MeshShape& mesh : meshes())
    for (const int stage : {0, 1, 2, 3}) {
      const MeshTrial trial{.mesh = mesh, .stage = stage};
      SCOPED_TRACE(trial.to_string());
      MeshTrainee trainee(world(), tiny_, trial);
      expect_near(train(trainee, Gpt2Tiny::kSteps), reference_curve(), 1e-5);
    }
}

// 47 positions divide by no size of the axis.
TEST_F(SequenceTest, DropoutRecomputationAndUnevenSharesFollowOneRank) {
  for (const MeshShape& mesh : meshes())
    for (const nn::Recompute recompute :
         {nn::Recompute::none, nn::Recompute::selective, nn::Recompute::full}) {
      MeshTrial trial{.mesh = mesh, .stage = 2, .dropout = 0.1, .positions = 47};
      trial.model.recompute = recompute;
      SCOPED_TRACE(trial.to_string());
      MeshTrainee trainee(world(), tiny_, trial);
      expect_near(train(trainee, trial.steps), train_alone(trial), 1e-5);
    }
}

TEST_F(SequenceTest, StagesGiveTheSameBits) {
  for (const MeshShape& mesh : meshes())
    for (const DType dtype : {DType::fp32, DType::bf16}) {
      std::optional<std::uint64_t> expected;
      for (const int stage : {0, 1, 2, 3}) {
        MeshTrial trial{.mesh = mesh, .stage = stage};
        trial.model.dtype = dtype;
        MeshTrainee trainee(world(), tiny_, trial);
        train(trainee, trial.steps);
        const std::uint64_t checksum = trainee.checksum();
        EXPECT_EQ(expected.value_or(checksum), checksum) << trial.to_string();
        expected = checksum;
      }
    }
}

TEST_F(SequenceTest, ACheckpointFitsAnyMesh) {
  std::vector<MeshShape> all = meshes();
  if (world().size() <= Gpt2Tiny::kRows) all.push_back({1, world().size(), 1, 1});
  expect_checkpoints_fit(all);
}

/// What a step sends over this rank's group of an axis, in all.
Traffic::Count sent_by_a_step(MeshTrainee& trainee, const char* axis, const char* operation) {
  Communicator& group = trainee.mesh().group(axis);
  group.traffic().reset();
  trainee.step();
  const Traffic::Count count = group.traffic().count(operation);
  const Traffic::Pause pause(group.traffic());
  return {group.all_reduce_scalar(count.bytes, Reduction::sum),
          group.all_reduce_scalar(count.messages, Reduction::sum)};
}

// In each direction and layer every token goes to the ranks that have the other heads: its q, k, v
// and the result of attention.
TEST_F(SequenceTest, UlyssesSendsWhatTheFormulasSay) {
  for (const MeshShape& mesh : meshes()) {
    SCOPED_TRACE(mesh.to_string());
    MeshTrainee trainee(world(), tiny_, {.mesh = mesh, .stage = 1, .positions = 47});
    const nn::Gpt2Config& config = trainee.model().config();
    const std::int64_t rows = trainee.batch().ids.size(0), size = mesh.sequence;
    const std::int64_t heads =
        balanced_share(kHeads, mesh.tensor, trainee.mesh().coordinate("tensor")).size();
    std::int64_t elements = 0;
    for (int rank = 0; rank < size; ++rank)
      elements += rows * balanced_share(47, mesh.sequence, rank).size() *
                  (heads - balanced_share(heads, mesh.sequence, rank).size()) * config.head_dim();
    const Traffic::Count sent = sent_by_a_step(trainee, "sequence", "all_to_all");
    EXPECT_EQ(sent.bytes, config.n_layer * 2 * 4 * elements * 4);
    EXPECT_EQ(sent.messages, config.n_layer * 4 * size * (size - 1));
  }
}

TEST_F(SequenceTest, EvaluationIsThatOfOneRank) {
  MeshTrainee alone(self(), tiny_, {});
  const parallel::EvaluationResult expected = evaluate(alone);
  for (const MeshShape& mesh : meshes()) {
    MeshTrainee trainee(world(), tiny_, {.mesh = mesh, .stage = 3});
    const parallel::EvaluationResult found = evaluate(trainee);
    EXPECT_NEAR(found.loss(), expected.loss(), 1e-6);
    EXPECT_EQ(found.tokens, expected.tokens);
  }
}

TEST_F(SequenceTest, ActivationsTakeWhatTheFormulaSays) {
  if (!testing::test_device().is_cpu()) GTEST_SKIP() << "counted on the host";
  for (const MeshShape& mesh : meshes()) {
    SCOPED_TRACE(mesh.to_string());
    MeshTrainee trainee(world(), tiny_, {.mesh = mesh, .dropout = 0.1});
    const std::int64_t rows = trainee.batch().ids.size(0);
    MemoryLedger& ledger = memory_ledger(Device{});
    trainee.step();
    ledger.reset_peaks();
    trainee.step();
    const std::int64_t whole_batch = 2 * 4 * rows * Gpt2Tiny::kPositions;
    EXPECT_EQ(ledger.peak(Purpose::activations) - whole_batch,
              trainee.model().activation_bytes(rows, Gpt2Tiny::kPositions));
  }
}

TEST(SequenceShares, SizesThatCannotBeSplitAreNamed) {
  const Gpt2Tiny tiny;
  test::expect_error(Code::invalid_config, {"mesh.sequence is 5", "model.n_head is 4", "1 to 4"},
                     [&] { tiny.model({.sequence = {.size = 5}}); });
  test::expect_error(Code::invalid_config,
                     {"mesh.sequence is 3", "2 on a rank of mesh.tensor 2", "1 to 2"},
                     [&] { tiny.model({.tensor = {.size = 2}, .sequence = {.size = 3}}); });
  test::expect_error(Code::invalid_config, {"mesh.sequence is 4", "has 3 tokens", "1 to 3"},
                     [&] { nn::token_shares({.size = 4}, 3); });
}

TEST(SequenceShares, WithoutItsGroupAModelOnlyHasShapes) {
  const Gpt2Tiny tiny;
  const auto model = tiny.model({.sequence = {.size = 2}});
  EXPECT_EQ(model->parameter_count(), tiny.model()->parameter_count());
  test::expect_error(Code::invalid_argument, {"sequence axis without its group"}, [&] {
    autograd::Tape tape(autograd::Recording::off);
    model->forward_loss(tape, tiny.batch(0, 0, 1));
  });
}

}  // namespace
}  // namespace tessera::test
