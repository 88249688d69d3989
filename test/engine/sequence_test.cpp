// SPDX-License-Identifier: Apache-2.0
// Training with sequences that ranks share: PyTorch's curve, one rank's curve, with and without a
// tensor axis beside it, the bytes that travel, and checkpoints that know nothing of the mesh.
#include <algorithm>
#include <optional>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/comm/mesh.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/device/memory.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/nn/models/gpt2.hpp"
#include "tessera/parallel/evaluation.hpp"
#include "tessera/parallel/model_state.hpp"

#include "support/expect_error.hpp"
#include "support/gpt2_tiny.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_device.hpp"

namespace tessera::test {
namespace {

constexpr std::int64_t kHeads = 4;

struct Trial {
  MeshShape mesh{};
  int stage = 0;
  int steps = 3;
  nn::ModelOptions model{};
  double dropout = 0;
  std::int64_t positions = Gpt2Tiny::kPositions;
};

/// The first positions of every row.
nn::Batch shortened(const nn::Batch& batch, std::int64_t positions) {
  nn::Batch result = batch;
  const auto cut = [&](const Tensor& whole) {
    const Tensor part({whole.size(0), positions}, DType::int32);
    for (std::int64_t row = 0; row < whole.size(0); ++row)
      std::copy_n(whole.as<std::int32_t>() + row * whole.size(1), positions,
                  part.as<std::int32_t>() + row * positions);
    return part;
  };
  result.ids = cut(batch.ids);
  result.targets = cut(batch.targets);
  return result;
}

/// The model, its optimizer and the groups that a mesh gives them.
class Trainee {
 public:
  Trainee(Communicator& world, const Gpt2Tiny& tiny, const Trial& trial)
      : tiny_(tiny), trial_(trial), mesh_(world, trial.mesh) {
    nn::Gpt2Config config = nn::Gpt2Config::from_json(tiny.model()->config_json(), false);
    config.embd_pdrop = config.attn_pdrop = config.resid_pdrop = trial.dropout;
    nn::ModelOptions options = trial.model;
    options.tensor = {mesh_.size("tensor"), mesh_.coordinate("tensor"), &mesh_.group("tensor")};
    options.sequence.size = mesh_.size("sequence");
    options.sequence.rank = mesh_.coordinate("sequence");
    options.sequence.group = &mesh_.group("sequence");
    model_ = std::make_unique<nn::Gpt2>(config, options);
    engine::EngineOptions engine;
    engine.zero.device = testing::test_device();
    engine.zero.stage = trial.stage;
    engine.zero.dtype = trial.model.dtype;
    engine.zero.rule.lr = 0.002;
    engine.zero.rule.beta2 = 0.95;
    engine.groups.weight_decay = 0.1;
    engine.zero.gradient_clipping = 1.0;
    engine.zero.everyone = &mesh_.group("data+sequence+tensor");
    engine_.emplace(mesh_.group("data+sequence"), *model_, engine);
    parallel::load_parameters(*model_, engine_->optimizer(), tiny.weights());
  }

  /// This data rank's rows of a step, whole.
  nn::Batch batch() const {
    const int ranks = engine_->data_ranks(), rank = engine_->data_rank();
    const std::int64_t first = Gpt2Tiny::kRows * rank / ranks;
    const std::int64_t last = Gpt2Tiny::kRows * (rank + 1) / ranks;
    return shortened(tiny_.batch(engine_->step(), first, last - first), trial_.positions);
  }
  engine::StepOutcome step() {
    std::vector<nn::Batch> micro = {batch()};
    return engine_->train_step(micro);
  }

  std::uint64_t checksum() { return parallel::weights_checksum(*model_, engine_->optimizer()); }
  engine::Engine& engine() { return *engine_; }
  nn::Gpt2& model() { return *model_; }
  Mesh& mesh() { return mesh_; }

 private:
  const Gpt2Tiny& tiny_;
  Trial trial_;
  Mesh mesh_;
  std::unique_ptr<nn::Gpt2> model_;
  std::optional<engine::Engine> engine_;
};

struct Curve {
  std::vector<double> losses, norms;
};

class SequenceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    set_threads(1);
    if (!testing::test_device().is_cpu()) world().open_device(testing::test_device());
  }

  Communicator& world() { return runtime_.world(); }

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

  Curve train(Trainee& trainee, int steps) {
    Curve curve;
    for (int i = 0; i < steps; ++i) {
      const engine::StepOutcome outcome = trainee.step();
      EXPECT_FALSE(outcome.skipped) << outcome.skipped_reason;
      curve.losses.push_back(outcome.loss);
      curve.norms.push_back(outcome.gradient_norm);
    }
    return curve;
  }

  /// What one rank alone finds.
  Curve train_alone(Trial trial) {
    const auto self = world().split(world().rank(), 0, "alone");
    trial.mesh = {};
    Trainee trainee(*self, tiny_, trial);
    return train(trainee, trial.steps);
  }

  static void expect_near(const Curve& found, const Curve& expected, double tolerance) {
    for (std::size_t i = 0; i < found.losses.size(); ++i) {
      EXPECT_NEAR(found.losses[i], expected.losses.at(i), tolerance) << "step " << i;
      EXPECT_NEAR(found.norms[i], expected.norms.at(i), 10 * tolerance * expected.norms.at(i))
          << "step " << i;
    }
  }

  Runtime runtime_;
  const Gpt2Tiny tiny_;
};

TEST_F(SequenceTest, FollowsTheReferenceCurveInEveryStage) {
  const Curve expected{tiny_.doubles("losses.fp64"), tiny_.doubles("grad_norms.fp64")};
  for (const MeshShape& mesh : meshes())
    for (const int stage : {0, 1, 2, 3}) {
      SCOPED_TRACE(fmt::format("{}, stage {}", mesh.to_string(), stage));
      Trainee trainee(world(), tiny_, {.mesh = mesh, .stage = stage});
      expect_near(train(trainee, Gpt2Tiny::kSteps), expected, 1e-5);
    }
}

// 47 positions divide by no size of the axis.
TEST_F(SequenceTest, DropoutRecomputationAndUnevenSharesFollowOneRank) {
  for (const MeshShape& mesh : meshes())
    for (const nn::Recompute recompute :
         {nn::Recompute::none, nn::Recompute::selective, nn::Recompute::full}) {
      SCOPED_TRACE(fmt::format("{}, recompute {}", mesh.to_string(), static_cast<int>(recompute)));
      Trial trial{.mesh = mesh, .stage = 2, .dropout = 0.1, .positions = 47};
      trial.model.recompute = recompute;
      Trainee trainee(world(), tiny_, trial);
      expect_near(train(trainee, trial.steps), train_alone(trial), 1e-5);
    }
}

TEST_F(SequenceTest, StagesGiveTheSameBits) {
  for (const MeshShape& mesh : meshes())
    for (const DType dtype : {DType::fp32, DType::bf16}) {
      std::optional<std::uint64_t> expected;
      for (const int stage : {0, 1, 2, 3}) {
        Trial trial{.mesh = mesh, .stage = stage};
        trial.model.dtype = dtype;
        Trainee trainee(world(), tiny_, trial);
        train(trainee, trial.steps);
        const std::uint64_t checksum = trainee.checksum();
        EXPECT_EQ(expected.value_or(checksum), checksum)
            << mesh.to_string() << ", stage " << stage << ", " << to_string(dtype);
        expected = checksum;
      }
    }
}

TEST_F(SequenceTest, ACheckpointFitsAnyMesh) {
  const TemporaryFolder own;
  const std::string folder = world().broadcast_text(own.path(), 0);
  std::vector<MeshShape> all = meshes();
  if (world().size() <= Gpt2Tiny::kRows) all.push_back({1, world().size(), 1, 1});
  for (const MeshShape& from : all) {
    SCOPED_TRACE("saved with " + from.to_string());
    Trainee saver(world(), tiny_, {.mesh = from, .stage = 1});
    train(saver, 2);
    const std::uint64_t saved = saver.checksum();
    saver.engine().save_checkpoint(folder, {.tag = "a"});
    const Curve expected = train(saver, 2);
    for (const MeshShape& to : all) {
      Trainee loader(world(), tiny_, {.mesh = to, .stage = to == from ? 1 : 3});
      loader.engine().load_checkpoint(folder + "/a.h5");
      EXPECT_EQ(loader.checksum(), saved) << "loaded with " << to.to_string();
      expect_near(train(loader, 2), expected, 1e-5);
      if (to == from) {
        EXPECT_EQ(loader.checksum(), saver.checksum());
      }
    }
  }
}

/// What a step sends over this rank's group of an axis, in all.
Traffic::Count sent_by_a_step(Trainee& trainee, const char* axis, const char* operation) {
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
    Trainee trainee(world(), tiny_, {.mesh = mesh, .stage = 1, .positions = 47});
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
  const auto evaluate = [&](Trainee& trainee) {
    return parallel::evaluate(
        trainee.model(), trainee.engine().hooks(), trainee.engine().group(), 7,
        Gpt2Tiny::kPositions, 2,
        [&](std::int64_t row, std::int32_t* inputs, std::int32_t* targets) {
          const nn::Batch batch = tiny_.batch(row / 4, row % 4, 1);
          std::copy_n(batch.ids.as<std::int32_t>(), Gpt2Tiny::kPositions, inputs);
          std::copy_n(batch.targets.as<std::int32_t>(), Gpt2Tiny::kPositions, targets);
        },
        trainee.engine().stream());
  };
  const auto self = world().split(world().rank(), 0, "alone");
  Trainee alone(*self, tiny_, {});
  const parallel::EvaluationResult expected = evaluate(alone);
  for (const MeshShape& mesh : meshes()) {
    Trainee trainee(world(), tiny_, {.mesh = mesh, .stage = 3});
    const parallel::EvaluationResult found = evaluate(trainee);
    EXPECT_NEAR(found.loss(), expected.loss(), 1e-6);
    EXPECT_EQ(found.tokens, expected.tokens);
  }
}

TEST_F(SequenceTest, ActivationsTakeWhatTheFormulaSays) {
  if (!testing::test_device().is_cpu()) GTEST_SKIP() << "counted on the host";
  for (const MeshShape& mesh : meshes()) {
    SCOPED_TRACE(mesh.to_string());
    Trainee trainee(world(), tiny_, {.mesh = mesh, .dropout = 0.1});
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
