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

using nn::SequenceAttention;

class SequenceTest : public MeshTest {
 protected:
  /// Meshes of all ranks with a sequence axis that the model and its rows allow, and both kinds of
  /// attention on them.
  std::vector<MeshTrial> trials() {
    std::vector<MeshTrial> list;
    for (int tensor = 1; tensor <= kHeads; ++tensor)
      for (int sequence = 2; sequence <= world().size() / tensor; ++sequence) {
        const int inside = tensor * sequence, data = world().size() / inside;
        if (world().size() % inside != 0 || data > TinyModel::kRows) continue;
        const MeshShape mesh{1, data, sequence, tensor};
        list.push_back(trial(mesh, SequenceAttention::ring));
        if (sequence <= kHeads / tensor) list.push_back(trial(mesh, SequenceAttention::ulysses));
      }
    return list;
  }

 private:
  static MeshTrial trial(const MeshShape& mesh, SequenceAttention attention) {
    MeshTrial result{.mesh = mesh};
    result.model.sequence.attention = attention;
    return result;
  }
};

TEST_F(SequenceTest, FollowsTheReferenceCurveInEveryStage) {
  expect_reference_curve_in_every_stage(trials());
}

// 47 positions divide by no size of the axis.
TEST_F(SequenceTest, DropoutRecomputationAndUnevenSharesFollowOneRank) {
  for (MeshTrial trial : trials())
    for (const nn::Recompute recompute :
         {nn::Recompute::none, nn::Recompute::selective, nn::Recompute::full}) {
      trial.stage = 2;
      trial.dropout = 0.1;
      trial.positions = 47;
      trial.model.recompute = recompute;
      SCOPED_TRACE(trial.to_string());
      MeshTrainee trainee(world(), tiny_, trial);
      expect_near(train(trainee, trial.steps), train_alone(trial), 1e-5);
    }
}

TEST_F(SequenceTest, EveryGradientIsThatOfOneRank) {
  for (MeshTrial trial : trials()) {
    SCOPED_TRACE(trial.to_string());
    trial.dropout = 0.1;
    trial.positions = 47;
    expect_gradients_of_one_rank(trial);
  }
}

TEST_F(SequenceTest, StagesGiveTheSameBits) {
  for (MeshTrial trial : trials())
    for (const DType dtype : {DType::fp32, DType::bf16}) {
      std::optional<std::uint64_t> expected;
      trial.model.dtype = dtype;
      for (const int stage : {0, 1, 2, 3}) {
        trial.stage = stage;
        MeshTrainee trainee(world(), tiny_, trial);
        train(trainee, trial.steps);
        const std::uint64_t checksum = trainee.checksum();
        EXPECT_EQ(expected.value_or(checksum), checksum) << trial.to_string();
        expected = checksum;
      }
    }
}

TEST_F(SequenceTest, ACheckpointFitsAnyMesh) {
  std::vector<MeshTrial> all = trials();
  if (world().size() <= TinyModel::kRows) all.push_back({.mesh = {1, world().size(), 1, 1}});
  expect_checkpoints_fit(all);
}

// In each direction and layer every token goes to the ranks that have the other heads: its q, k, v
// and the result of attention.
TEST_F(SequenceTest, UlyssesSendsWhatTheFormulasSay) {
  for (MeshTrial trial : trials()) {
    if (trial.model.sequence.attention != SequenceAttention::ulysses) continue;
    SCOPED_TRACE(trial.to_string());
    trial.positions = 47;
    const MeshShape& mesh = trial.mesh;
    MeshTrainee trainee(world(), tiny_, trial);
    const nn::DecoderSizes& sizes = trainee.sizes();
    const std::int64_t rows = trainee.batch().ids.size(0), size = mesh.sequence;
    const std::int64_t heads =
        balanced_share(kHeads, mesh.tensor, trainee.mesh().coordinate("tensor")).size();
    std::int64_t elements = 0;
    for (int rank = 0; rank < size; ++rank)
      elements += rows * balanced_share(47, mesh.sequence, rank).size() *
                  (heads - balanced_share(heads, mesh.sequence, rank).size()) * sizes.head_dim;
    const Traffic::Count sent = sent_by_a_step(trainee, "sequence", "all_to_all");
    EXPECT_EQ(sent.bytes, sizes.layers * 2 * 4 * elements * 4);
    EXPECT_EQ(sent.messages, sizes.layers * 4 * size * (size - 1));
  }
}

// All keys and values pass by every rank but the last of their way, in backward with their
// gradients behind them.
TEST_F(SequenceTest, RingsSendWhatTheFormulasSay) {
  for (MeshTrial trial : trials()) {
    if (trial.model.sequence.attention != SequenceAttention::ring) continue;
    SCOPED_TRACE(trial.to_string());
    trial.positions = 47;
    MeshTrainee trainee(world(), tiny_, trial);
    const nn::DecoderSizes& sizes = trainee.sizes();
    const std::int64_t rows = trainee.batch().ids.size(0), size = trial.mesh.sequence;
    const std::int64_t heads =
        balanced_share(kHeads, trial.mesh.tensor, trainee.mesh().coordinate("tensor")).size();
    const std::int64_t elements = rows * 47 * 2 * heads * sizes.head_dim;
    const Traffic::Count sent = sent_by_a_step(trainee, "sequence", "send");
    EXPECT_EQ(sent.bytes, sizes.layers * 3 * (size - 1) * elements * 4);
    EXPECT_EQ(sent.messages, sizes.layers * 3 * (size - 1) * size);
  }
}

TEST_F(SequenceTest, EvaluationIsThatOfOneRank) {
  MeshTrainee alone(self(), tiny_, {});
  const parallel::EvaluationResult expected = evaluate(alone);
  for (MeshTrial trial : trials()) {
    trial.stage = 3;
    MeshTrainee trainee(world(), tiny_, trial);
    const parallel::EvaluationResult found = evaluate(trainee);
    EXPECT_NEAR(found.loss(), expected.loss(), 1e-6);
    EXPECT_EQ(found.tokens, expected.tokens);
  }
}

TEST_F(SequenceTest, ActivationsTakeWhatTheFormulaSays) {
  if (!testing::test_device().is_cpu()) GTEST_SKIP() << "counted on the host";
  for (MeshTrial trial : trials()) {
    SCOPED_TRACE(trial.to_string());
    trial.dropout = 0.1;
    MeshTrainee trainee(world(), tiny_, trial);
    const std::int64_t rows = trainee.batch().ids.size(0);
    MemoryLedger& ledger = memory_ledger(Device{});
    trainee.step();
    ledger.reset_peaks();
    trainee.step();
    const std::int64_t whole_batch = 2 * 4 * rows * TinyModel::kPositions;
    EXPECT_EQ(ledger.peak(Purpose::activations) - whole_batch,
              trainee.model().activation_bytes(rows, TinyModel::kPositions));
  }
}

// Pairs of a query and a key that it sees, in halves: those on the diagonal count one.
TEST(SequenceShares, RingsGiveAllRanksTheSameWork) {
  for (const int ranks : {2, 3, 4, 8}) {
    const auto shares = nn::token_shares({.size = ranks, .attention = SequenceAttention::ring},
                                         std::int64_t{10} * 2 * ranks);
    std::vector<std::int64_t> work;
    for (const auto& pieces : shares) {
      std::int64_t pairs = 0;
      for (const Interval& piece : pieces)
        for (std::int64_t query = piece.begin; query < piece.end; ++query) pairs += 2 * query + 1;
      work.push_back(pairs);
    }
    EXPECT_EQ(*std::ranges::max_element(work), *std::ranges::min_element(work)) << ranks;
  }
}

TEST(SequenceShares, WhatSendsLessIsChosen) {
  using enum SequenceAttention;
  for (int ranks = 2; ranks <= 64; ++ranks)
    for (const std::int64_t heads : {1, 2, 4, 8, 16, 32, 64})
      for (std::int64_t kv_heads = 1; kv_heads <= heads; kv_heads *= 2) {
        const auto ring_traffic = nn::attention_traffic(ring, ranks, heads, kv_heads);
        const auto all_to_all = nn::attention_traffic(ulysses, ranks, heads, kv_heads);
        // Forward the ring is ahead for fewer than 1 + heads / kv_heads ranks.
        if (ranks * kv_heads != kv_heads + heads) {
          EXPECT_EQ(ring_traffic.forward < all_to_all.forward, ranks * kv_heads < kv_heads + heads);
        }
        const bool rings = kv_heads < ranks || 3 * ranks * kv_heads < 2 * (kv_heads + heads);
        EXPECT_EQ(nn::choose_attention(automatic, ranks, heads, kv_heads), rings ? ring : ulysses)
            << ranks << " ranks, heads " << heads << "/" << kv_heads;
      }
  EXPECT_EQ(nn::choose_attention(ring, 2, 8, 8), ring);
}

TEST(SequenceShares, SizesThatCannotBeSplitAreNamed) {
  constexpr auto kUlysses = SequenceAttention::ulysses;
  const TinyModel tiny;
  test::expect_error(Code::invalid_config, {"mesh.sequence is 5", "model.n_head is 4", "1 to 4"},
                     [&] { tiny.model({.sequence = {.size = 5, .attention = kUlysses}}); });
  test::expect_error(
      Code::invalid_config, {"mesh.sequence is 3", "2 on a rank of mesh.tensor 2", "1 to 2"},
      [&] { tiny.model({.tensor = {.size = 2}, .sequence = {.size = 3, .attention = kUlysses}}); });
  test::expect_error(Code::invalid_config, {"mesh.sequence is 4", "has 3 tokens", "1 to 3"},
                     [&] { nn::token_shares({.size = 4}, 3); });
  test::expect_error(
      Code::invalid_config, {"mesh.sequence is 4", "has 7 tokens", "two for a ring", "1 to 3"},
      [&] { nn::token_shares({.size = 4, .attention = SequenceAttention::ring}, 7); });
}

TEST(SequenceShares, WithoutItsGroupAModelOnlyHasShapes) {
  const TinyModel tiny;
  const auto model = tiny.model({.sequence = {.size = 2}});
  EXPECT_EQ(model->parameter_count(), tiny.model()->parameter_count());
  test::expect_error(Code::invalid_argument, {"sequence axis without its group"}, [&] {
    autograd::Tape tape(autograd::Recording::off);
    model->forward_loss(tape, tiny.batch(0, 0, 1));
  });
}

}  // namespace
}  // namespace tessera::test
