// SPDX-License-Identifier: Apache-2.0
// Training a model that is split over a tensor axis: PyTorch's curve, one rank's curve, the bytes
// that travel, and checkpoints that know nothing of the mesh.
#include <optional>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/device/memory.hpp"

#include "support/expect_error.hpp"
#include "support/mesh_test.hpp"

namespace tessera::test {
namespace {

using TensorTest = MeshTest;

// The keys' bias has no gradient but rounding, which Adam scales up to steps of full size.
bool is_key_bias(const std::string& name, std::int64_t element, std::int64_t elements) {
  return name.ends_with("c_attn.bias") && element * 3 / elements == 1;
}

void expect_final_weights(MeshTrainee& trainee, const TinyModel& tiny) {
  int index = 0;
  for (const auto& [name, parameter] : trainee.model().parameters()) {
    const auto expected = tiny.doubles("final.fp64." + name);
    const zero::Range owned = trainee.engine().optimizer().owned(index);
    std::vector<float> found(static_cast<std::size_t>(owned.count));
    trainee.engine().optimizer().master(index++, owned.begin, owned.count, found.data());
    nn::for_each_run(parameter->partition, owned.begin, owned.count,
                     [&, &tensor = name, elements = static_cast<std::int64_t>(expected.size())](
                         std::int64_t local, std::int64_t logical, std::int64_t count) {
                       for (std::int64_t i = 0; i < count; ++i)
                         if (!is_key_bias(tensor, logical + i, elements)) {
                           ASSERT_NEAR(found[static_cast<std::size_t>(local - owned.begin + i)],
                                       expected[static_cast<std::size_t>(logical + i)], 2e-4)
                               << tensor << " element " << logical + i;
                         }
                     });
  }
}

TEST_F(TensorTest, FollowsTheReferenceCurveInEveryStage) {
  for (const MeshShape& mesh : tensor_meshes())
    for (const int stage : {0, 1, 2, 3}) {
      const MeshTrial trial{.mesh = mesh, .stage = stage};
      SCOPED_TRACE(trial.to_string());
      MeshTrainee trainee(world(), tiny_, trial);
      expect_near(train(trainee, TinyModel::kSteps), reference_curve(), 1e-5);
      expect_final_weights(trainee, tiny_);
    }
}

TEST_F(TensorTest, DropoutAndRecomputationFollowOneRank) {
  for (const MeshShape& mesh : tensor_meshes())
    for (const nn::Recompute recompute :
         {nn::Recompute::none, nn::Recompute::selective, nn::Recompute::full}) {
      MeshTrial trial{.mesh = mesh, .stage = 2, .dropout = 0.1};
      trial.model.recompute = recompute;
      SCOPED_TRACE(trial.to_string());
      MeshTrainee trainee(world(), tiny_, trial);
      expect_near(train(trainee, trial.steps), train_alone(trial), 1e-5);
    }
}

TEST_F(TensorTest, SharedInputsChangeNoBitAndTakeAShare) {
  for (const MeshShape& mesh : tensor_meshes())
    for (const DType dtype : {DType::fp32, DType::bf16}) {
      MeshTrial trial{.mesh = mesh, .stage = 3, .dropout = 0.1, .positions = 47};
      trial.layers = 6;  // deep enough that what is kept decides
      trial.model.dtype = dtype;
      trial.model.recompute = nn::Recompute::full;
      SCOPED_TRACE(trial.to_string());
      MeshTrainee whole(world(), tiny_, trial);
      trial.model.partition_activations = true;
      MeshTrainee shared(world(), tiny_, trial);
      train(whole, 2);
      train(shared, 1);
      const nn::DecoderSizes& sizes = shared.sizes();
      const std::int64_t tokens = shared.batch().ids.numel();
      const std::int64_t input = tokens * sizes.width * static_cast<std::int64_t>(size_of(dtype));
      EXPECT_EQ(sent_by_a_step(shared, "tensor", "all_gather").bytes,
                sizes.layers * (mesh.tensor - 1) * input);
      EXPECT_EQ(shared.checksum(), whole.checksum());
      if (!testing::test_device().is_cpu()) continue;
      MemoryLedger& ledger = memory_ledger(Device{});
      ledger.reset_peaks();
      shared.step();
      const std::int64_t batch = 2 * 4 * tokens, rows = tokens / trial.positions;
      EXPECT_EQ(ledger.peak(Purpose::activations) - batch,
                shared.model().activation_bytes(rows, trial.positions));
    }
}

TEST_F(TensorTest, InputsOnTheHostChangeNoBitAndLeaveTheGpu) {
  for (const MeshShape& mesh : tensor_meshes()) {
    MeshTrial trial{.mesh = mesh, .stage = 1, .dropout = 0.1};
    trial.layers = 4;
    trial.model.recompute = nn::Recompute::full;
    MeshTrainee kept(world(), tiny_, trial);
    train(kept, 2);
    trial.model.host_activations = true;
    for (const bool shares : {false, true}) {
      trial.model.partition_activations = shares;
      SCOPED_TRACE(trial.to_string());
      MeshTrainee away(world(), tiny_, trial);
      train(away, 2);
      EXPECT_EQ(away.checksum(), kept.checksum());
      if (testing::test_device().is_cpu()) continue;  // they are there already
      MemoryLedger& ledger = memory_ledger(testing::test_device());
      ledger.reset_peaks();
      away.step();
      const Tensor ids = away.batch().ids;  // of which the GPU has a copy
      EXPECT_EQ(ledger.peak(Purpose::activations) - static_cast<std::int64_t>(ids.bytes()),
                away.model().activation_bytes(ids.size(0), ids.size(1)));
    }
  }
}

TEST_F(TensorTest, StagesGiveTheSameBitsAndCopiesStayTheSame) {
  for (const MeshShape& mesh : tensor_meshes())
    for (const DType dtype : {DType::fp32, DType::bf16}) {
      std::optional<std::uint64_t> expected;
      for (const int stage : {0, 1, 2, 3}) {
        MeshTrial trial{.mesh = mesh, .stage = stage};
        trial.model.dtype = dtype;
        SCOPED_TRACE(trial.to_string());
        MeshTrainee trainee(world(), tiny_, trial);
        train(trainee, trial.steps);
        const std::uint64_t checksum = trainee.checksum();
        EXPECT_EQ(expected.value_or(checksum), checksum);
        expected = checksum;
        // Every tensor rank has the same bits of what is not split.
        zero::PartitionedOptimizer& optimizer = trainee.engine().optimizer();
        int index = 0;
        for (const auto& [name, parameter] : trainee.model().parameters()) {
          const zero::Range owned = optimizer.owned(index);
          std::vector<float> mine(static_cast<std::size_t>(owned.count));
          optimizer.master(index++, owned.begin, owned.count, mine.data());
          if (!parameter->partition.whole()) continue;
          const std::string text(reinterpret_cast<const char*>(mine.data()), mine.size() * 4);
          const auto all = trainee.mesh().group("tensor").all_gather_text(text);
          // Slices lie differently where shares are uneven.
          if (all[0].size() == text.size()) {
            EXPECT_EQ(all[0], text) << name;
          }
        }
      }
    }
}

TEST_F(TensorTest, ACheckpointFitsAnyMesh) {
  std::vector<MeshShape> all = tensor_meshes();
  if (world().size() <= TinyModel::kRows) all.push_back({1, world().size(), 1, 1});
  expect_checkpoints_fit(all);
}

// Each rank counts 2 (t - 1) / t of what it reduces: over the group 2 (t - 1) times the bytes.
TEST_F(TensorTest, TrafficEqualsTheFormulas) {
  for (const MeshShape& mesh : tensor_meshes()) {
    MeshTrainee trainee(world(), tiny_, {.mesh = mesh, .stage = 1});
    const nn::DecoderSizes& sizes = trainee.sizes();
    const std::int64_t tokens = trainee.batch().ids.numel();
    // Two in each direction and layer, the embedding's and that of the head's input; three numbers
    // a token for the loss.
    const std::int64_t states = (4 * sizes.layers + 2) * tokens * sizes.width * 4;
    const std::int64_t loss = 3 * tokens * 4;
    EXPECT_EQ(sent_by_a_step(trainee, "tensor", "all_reduce").bytes,
              2 * (mesh.tensor - 1) * (states + loss));
  }
}

TEST_F(TensorTest, EvaluationIsThatOfOneRank) {
  MeshTrainee alone(self(), tiny_, {});
  const double expected = evaluate(alone).loss();
  for (const MeshShape& mesh : tensor_meshes()) {
    MeshTrainee trainee(world(), tiny_, {.mesh = mesh, .stage = 3});
    EXPECT_NEAR(evaluate(trainee).loss(), expected, 1e-6);
  }
}

TEST(TensorShares, SizesThatCannotBeSplitAreNamed) {
  const TinyModel tiny;
  test::expect_error(Code::invalid_config, {"mesh.tensor is 5", "model.n_head is 4", "1 to 4"},
                     [&] { tiny.model({.tensor = {.size = 5}}); });
}

TEST(TensorShares, WithoutItsGroupAModelOnlyHasShapes) {
  const TinyModel tiny;
  const auto model = tiny.model({.tensor = {.size = 2}});
  EXPECT_EQ(model->parameter_count(), tiny.model()->parameter_count());
  test::expect_error(Code::invalid_argument, {"without its group"}, [&] {
    autograd::Tape tape(autograd::Recording::off);
    model->forward_loss(tape, tiny.batch(0, 0, 1));
  });
  test::expect_error(Code::not_supported, {"cached keys and values"},
                     [&] { model->make_cache(1, 8); });
}

}  // namespace
}  // namespace tessera::test
