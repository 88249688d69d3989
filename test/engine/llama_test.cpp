// SPDX-License-Identifier: Apache-2.0
// Llama on every axis of a mesh: grouped key and value heads, which on three and four tensor ranks
// are fewer than ranks, and gated projections.
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/device/memory.hpp"

#include "support/expect_error.hpp"
#include "support/mesh_test.hpp"

namespace tessera::test {
namespace {

constexpr int kKvHeads = 2;

using nn::SequenceAttention;

class LlamaTest : public MeshTest {
 protected:
  LlamaTest() : MeshTest("llama-tiny") {}

  /// Every division of these ranks among tensor and sequence axes, with both kinds of attention
  /// where they are possible, with and without token shards.
  std::vector<MeshTrial> trials() {
    std::vector<MeshTrial> list;
    for (int tensor = 1; tensor <= 4; ++tensor)
      for (int sequence = 1; sequence <= 4; ++sequence) {
        const int inside = tensor * sequence, data = world().size() / inside;
        if (inside == 1 || world().size() % inside != 0 || data > TinyModel::kRows) continue;
        for (const bool token_shards : {false, true}) {
          if (token_shards && tensor == 1) continue;
          MeshTrial trial{.mesh = {1, data, sequence, tensor}};
          trial.model.sequence_parallel = token_shards;
          trial.model.sequence.attention = SequenceAttention::ring;
          list.push_back(trial);
          if (sequence == 1 || sequence > std::max(kKvHeads / tensor, 1)) continue;
          trial.model.sequence.attention = SequenceAttention::ulysses;
          list.push_back(trial);
        }
      }
    return list;
  }
};

TEST_F(LlamaTest, FollowsTheReferenceCurveInEveryStage) {
  expect_reference_curve_in_every_stage(trials());
}

TEST_F(LlamaTest, DropoutAndRecomputationFollowOneRankToEveryGradient) {
  for (MeshTrial trial : trials())
    for (const nn::Recompute recompute :
         {nn::Recompute::none, nn::Recompute::selective, nn::Recompute::full}) {
      trial.stage = 2;
      trial.dropout = 0.1;
      trial.positions = 47;
      trial.model.recompute = recompute;
      if (is_slow() && recompute == nn::Recompute::none) continue;
      SCOPED_TRACE(trial.to_string());
      MeshTrainee trainee(world(), tiny_, trial);
      expect_near(train(trainee, trial.steps), train_alone(trial), 1e-5);
      if (!on_gpu()) expect_gradients_of_one_rank(trial);
    }
}

// Those of key heads that several ranks hold, too.
TEST_F(LlamaTest, BiasesFollowOneRankToEveryGradient) {
  for (MeshTrial trial : trials()) {
    trial.stage = 1;
    trial.biased = true;
    SCOPED_TRACE(trial.to_string());
    MeshTrainee trainee(world(), tiny_, trial);
    expect_near(train(trainee, trial.steps), train_alone(trial), 1e-5);
    if (!on_gpu()) expect_gradients_of_one_rank(trial);
  }
}

TEST_F(LlamaTest, StagesGiveTheSameBitsAndCopiesStayTheSame) {
  for (MeshTrial trial : trials())
    for (const DType dtype : {DType::fp32, DType::bf16}) {
      if (is_slow() && dtype == DType::fp32) continue;
      trial.model.dtype = dtype;
      std::map<std::string, std::uint64_t> expected;
      for (const int stage : {0, 1, 2, 3}) {
        trial.stage = stage;
        SCOPED_TRACE(trial.to_string());
        MeshTrainee trainee(world(), tiny_, trial);
        train(trainee, trial.steps);
        EXPECT_EQ(expected.emplace("all", trainee.checksum()).first->second, trainee.checksum());
        if (stage > 0) continue;
        // Whole parameters on each rank: what ranks hold in common has the same bits.
        const int tensor = trial.mesh.tensor;
        std::map<std::string, std::string> first_holders;
        int index = 0;
        for (const auto& [name, parameter] : trainee.model().parameters()) {
          const int here = index++;
          if (!parameter->held_by_several) continue;
          EXPECT_GT(tensor, kKvHeads);
          const zero::Range owned = trainee.engine().optimizer().owned(here);
          std::vector<float> values(static_cast<std::size_t>(owned.count));
          trainee.engine().optimizer().master(here, owned.begin, owned.count, values.data());
          const std::string bits(reinterpret_cast<const char*>(values.data()), values.size() * 4);
          const auto all = trainee.mesh().group("tensor").all_gather_text(
              std::to_string(parameter->partition.runs(0, 1).front().logical) + ":" + bits);
          for (const std::string& text : all) {
            const std::string key = name + text.substr(0, text.find(':'));
            EXPECT_EQ(first_holders.emplace(key, text).first->second, text) << name;
          }
        }
        EXPECT_EQ(first_holders.empty(), tensor <= kKvHeads);
      }
    }
}

TEST_F(LlamaTest, ACheckpointFitsAnyMesh) {
  if (on_gpu()) GTEST_SKIP() << "the same on the host";
  std::vector<MeshTrial> all = trials();
  std::erase_if(all, [](const MeshTrial& trial) { return trial.model.sequence_parallel; });
  if (world().size() <= TinyModel::kRows) all.push_back({.mesh = {1, world().size(), 1, 1}});
  expect_checkpoints_fit(all);
}

TEST_F(LlamaTest, EvaluationIsThatOfOneRank) {
  MeshTrainee alone(self(), tiny_, {});
  const double expected = evaluate(alone).loss();
  for (MeshTrial trial : trials()) {
    trial.stage = 3;
    MeshTrainee trainee(world(), tiny_, trial);
    EXPECT_NEAR(evaluate(trainee).loss(), expected, 1e-6);
  }
}

TEST_F(LlamaTest, RunsInStages) {
  for (const int tensor : {1, 2})
    for (const auto kind : parallel::pipeline_kinds())
      for (const bool tied : {false, true}) {
        if (world().size() % (2 * tensor) != 0) continue;
        if (is_slow() && (tied || kind != parallel::PipelineKind::interleaved)) continue;
        MeshTrial trial{.mesh = {2, world().size() / (2 * tensor), 1, tensor}, .stage = 1};
        if (TinyModel::kRows % trial.mesh.data != 0) continue;  // as many on every rank
        trial.kind = kind;
        trial.layers = 6;
        trial.tied = tied;
        SCOPED_TRACE(trial.to_string());
        MeshTrainee trainee(world(), tiny_, trial);
        expect_near(train(trainee, 2), train_alone(trial), 1e-5);
      }
}

// A rank that has a key head in common with others sends them its gradients of that head's two
// weights.
TEST_F(LlamaTest, HoldersOfAHeadSendEachOtherItsGradients) {
  for (const MeshTrial& trial : trials()) {
    SCOPED_TRACE(trial.to_string());
    MeshTrainee trainee(world(), tiny_, trial);
    const nn::DecoderSizes& sizes = trainee.sizes();
    std::int64_t messages = 0;
    for (int head = 0; head < kKvHeads && trial.mesh.tensor > kKvHeads; ++head) {
      const std::int64_t holders = balanced_share(trial.mesh.tensor, kKvHeads, head).size();
      messages += holders * (holders - 1);
    }
    const Traffic::Count sent = sent_by_a_step(trainee, "tensor", "all_to_all");
    EXPECT_EQ(sent.bytes, sizes.layers * messages * 2 * sizes.head_dim * sizes.width * 4);
  }
}

TEST_F(LlamaTest, KeysAndValuesTravelOnce) {
  for (MeshTrial trial : trials()) {
    SCOPED_TRACE(trial.to_string());
    trial.positions = 47;
    MeshTrainee trainee(world(), tiny_, trial);
    const nn::DecoderSizes& sizes = trainee.sizes();
    const std::int64_t rows = trainee.batch().ids.size(0), ranks = trial.mesh.sequence;
    const std::int64_t keys = std::max(kKvHeads / trial.mesh.tensor, 1);
    if (trial.model.sequence.attention == SequenceAttention::ring) {
      const std::int64_t elements = rows * 47 * 2 * keys * sizes.head_dim;
      EXPECT_EQ(sent_by_a_step(trainee, "sequence", "send").bytes,
                sizes.layers * 3 * (ranks - 1) * elements * 4);
      continue;
    }
    const std::int64_t heads = sizes.heads / trial.mesh.tensor;
    std::int64_t elements = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const std::int64_t own = balanced_share(keys, static_cast<int>(ranks), rank).size();
      elements += rows * balanced_share(47, static_cast<int>(ranks), rank).size() *
                  (2 * (heads - own * heads / keys) + 2 * (keys - own)) * sizes.head_dim;
    }
    EXPECT_EQ(sent_by_a_step(trainee, "sequence", "all_to_all").bytes,
              sizes.layers * 2 * elements * 4);
  }
}

TEST_F(LlamaTest, ActivationsTakeWhatTheFormulaSays) {
  if (on_gpu()) GTEST_SKIP() << "counted on the host";
  for (MeshTrial trial : trials())
    for (const nn::Recompute recompute :
         {nn::Recompute::none, nn::Recompute::selective, nn::Recompute::full}) {
      trial.layers = 6;   // deep enough that what is kept decides
      trial.inner = 384;  // so wide that on four ranks the second product still does
      trial.model.recompute = recompute;
      SCOPED_TRACE(trial.to_string());
      MeshTrainee trainee(world(), tiny_, trial);
      train(trainee, 1);
      const std::int64_t rows = trainee.batch().ids.size(0);
      MemoryLedger& ledger = memory_ledger(Device{});
      ledger.reset_peaks();
      trainee.step();
      const std::int64_t batch = 2 * 4 * rows * trial.positions;
      EXPECT_EQ(ledger.peak(Purpose::activations) - batch,
                trainee.model().activation_bytes(rows, trial.positions));
    }
}

TEST(LlamaShares, SizesThatCannotBeSplitAreNamed) {
  const TinyModel tiny("llama-tiny");
  test::expect_error(Code::invalid_config,
                     {"mesh.tensor is 9", "model.num_attention_heads is 8", "1 to 8"},
                     [&] { tiny.model({.tensor = {.size = 9}}); });
  test::expect_error(
      Code::invalid_config, {"mesh.sequence is 3", "model.num_key_value_heads is 2", "ring"},
      [&] { tiny.model({.sequence = {.size = 3, .attention = SequenceAttention::ulysses}}); });
}

}  // namespace
}  // namespace tessera::test
