// SPDX-License-Identifier: Apache-2.0
// Training a model that is split over a tensor axis: PyTorch's curve, one rank's curve, the bytes
// that travel, and checkpoints that know nothing of the mesh.
#include <algorithm>
#include <functional>
#include <map>
#include <optional>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/comm/mesh.hpp"
#include "tessera/comm/runtime.hpp"
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
  int tensor = 1;
  int stage = 0;
  int steps = 3;
  nn::ModelOptions model{};
  double dropout = 0;
};

/// The model, its optimizer and the groups that a mesh gives them.
class Trainee {
 public:
  Trainee(Communicator& world, const Gpt2Tiny& tiny, const Trial& trial)
      : tiny_(tiny), mesh_(world, MeshShape{1, 0, 1, trial.tensor}) {
    nn::Gpt2Config config = nn::Gpt2Config::from_json(tiny.model()->config_json(), false);
    config.embd_pdrop = config.attn_pdrop = config.resid_pdrop = trial.dropout;
    nn::ModelOptions options = trial.model;
    options.tensor = {mesh_.size("tensor"), mesh_.coordinate("tensor"), &mesh_.group("tensor")};
    model_ = std::make_unique<nn::Gpt2>(config, options);
    engine::EngineOptions engine;
    engine.zero.device = testing::test_device();
    engine.zero.stage = trial.stage;
    engine.zero.dtype = trial.model.dtype;
    engine.zero.rule.lr = 0.002;
    engine.zero.rule.beta2 = 0.95;
    engine.groups.weight_decay = 0.1;
    engine.zero.gradient_clipping = 1.0;
    engine.zero.everyone = &mesh_.group("data+tensor");
    engine_.emplace(mesh_.group("data"), *model_, engine);
    parallel::load_parameters(*model_, engine_->optimizer(), tiny.weights());
  }

  engine::StepOutcome step() {
    const int ranks = engine_->group().size(), rank = engine_->group().rank();
    const std::int64_t first = Gpt2Tiny::kRows * rank / ranks;
    const std::int64_t last = Gpt2Tiny::kRows * (rank + 1) / ranks;
    std::vector<nn::Batch> micro = {tiny_.batch(engine_->step(), first, last - first)};
    return engine_->train_step(micro);
  }

  std::uint64_t checksum() { return parallel::weights_checksum(*model_, engine_->optimizer()); }
  engine::Engine& engine() { return *engine_; }
  nn::Gpt2& model() { return *model_; }
  Mesh& mesh() { return mesh_; }

 private:
  const Gpt2Tiny& tiny_;
  Mesh mesh_;
  std::unique_ptr<nn::Gpt2> model_;
  std::optional<engine::Engine> engine_;
};

struct Curve {
  std::vector<double> losses, norms;
};

class TensorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    set_threads(1);
    if (!testing::test_device().is_cpu()) world().open_device(testing::test_device());
  }

  Communicator& world() { return runtime_.world(); }

  /// Sizes of the tensor axis that this number of ranks and the model allow, but for 1.
  std::vector<int> sizes() {
    std::vector<int> list;
    for (int tensor = 2; tensor <= kHeads; ++tensor)
      if (world().size() % tensor == 0 && world().size() / tensor <= Gpt2Tiny::kRows)
        list.push_back(tensor);
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
    trial.tensor = 1;
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

// The keys' bias has no gradient but rounding, which Adam scales up to steps of full size.
bool is_key_bias(const std::string& name, std::int64_t element, std::int64_t elements) {
  return name.ends_with("c_attn.bias") && element * 3 / elements == 1;
}

void expect_final_weights(Trainee& trainee, const Gpt2Tiny& tiny) {
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
  const Curve expected{tiny_.doubles("losses.fp64"), tiny_.doubles("grad_norms.fp64")};
  for (const int tensor : sizes())
    for (const int stage : {0, 1, 2, 3}) {
      SCOPED_TRACE(fmt::format("tensor {}, stage {}", tensor, stage));
      Trainee trainee(world(), tiny_, {.tensor = tensor, .stage = stage});
      expect_near(train(trainee, Gpt2Tiny::kSteps), expected, 1e-5);
      expect_final_weights(trainee, tiny_);
    }
}

TEST_F(TensorTest, DropoutAndRecomputationFollowOneRank) {
  for (const int tensor : sizes())
    for (const nn::Recompute recompute :
         {nn::Recompute::none, nn::Recompute::selective, nn::Recompute::full}) {
      SCOPED_TRACE(fmt::format("tensor {}, recompute {}", tensor, static_cast<int>(recompute)));
      Trial trial{.tensor = tensor, .stage = 2, .dropout = 0.1};
      trial.model.recompute = recompute;
      Trainee trainee(world(), tiny_, trial);
      expect_near(train(trainee, trial.steps), train_alone(trial), 1e-5);
    }
}

TEST_F(TensorTest, StagesGiveTheSameBitsAndCopiesStayTheSame) {
  for (const int tensor : sizes())
    for (const DType dtype : {DType::fp32, DType::bf16}) {
      SCOPED_TRACE(fmt::format("tensor {}, {}", tensor, to_string(dtype)));
      std::optional<std::uint64_t> expected;
      for (const int stage : {0, 1, 2, 3}) {
        Trial trial{.tensor = tensor, .stage = stage};
        trial.model.dtype = dtype;
        Trainee trainee(world(), tiny_, trial);
        train(trainee, trial.steps);
        const std::uint64_t checksum = trainee.checksum();
        EXPECT_EQ(expected.value_or(checksum), checksum) << "stage " << stage;
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
  const TemporaryFolder own;
  const std::string folder = world().broadcast_text(own.path(), 0);
  std::vector<int> all = {1};
  for (const int tensor : sizes()) all.push_back(tensor);
  if (world().size() > Gpt2Tiny::kRows) all.erase(all.begin());
  for (const int from : all)
    for (const bool asynchronous : {false, true}) {
      SCOPED_TRACE(fmt::format("saved with tensor {}", from));
      Trainee saver(world(), tiny_, {.tensor = from, .stage = 1});
      train(saver, 2);
      const std::uint64_t saved = saver.checksum();
      saver.engine().save_checkpoint(folder, {.tag = "a", .asynchronous = asynchronous});
      saver.engine().finish_save();
      const Curve expected = train(saver, 2);
      EXPECT_EQ(checkpoint::Reader(world(), folder + "/a.h5").weights_checksum(), saved);
      EXPECT_TRUE(checkpoint::Reader(world(), folder + "/a.h5").verify(world()).empty());
      for (const int to : all) {
        Trainee loader(world(), tiny_, {.tensor = to, .stage = to == from ? 1 : 3});
        loader.engine().load_checkpoint(folder + "/a.h5");
        EXPECT_EQ(loader.checksum(), saved) << "loaded with tensor " << to;
        expect_near(train(loader, 2), expected, 1e-5);
        if (to == from) {
          EXPECT_EQ(loader.checksum(), saver.checksum());
        }
      }
    }
}

// Each rank counts 2 (t - 1) / t of what it reduces: over the group 2 (t - 1) times the bytes.
TEST_F(TensorTest, TrafficEqualsTheFormulas) {
  for (const int tensor : sizes()) {
    Trainee trainee(world(), tiny_, {.tensor = tensor, .stage = 1});
    Communicator& group = trainee.mesh().group("tensor");
    group.traffic().reset();
    trainee.step();
    const std::int64_t bytes = group.traffic().count("all_reduce").bytes;
    const Traffic::Pause pause(group.traffic());
    const nn::Gpt2Config& config = trainee.model().config();
    const int ranks = trainee.engine().group().size(), rank = trainee.engine().group().rank();
    const std::int64_t rows = Gpt2Tiny::kRows * (rank + 1) / ranks - Gpt2Tiny::kRows * rank / ranks;
    const std::int64_t tokens = rows * Gpt2Tiny::kPositions;
    // Two in each direction and layer, the embedding's and that of the head's input; three numbers
    // a token for the loss.
    const std::int64_t states = (4 * config.n_layer + 2) * tokens * config.n_embd * 4;
    const std::int64_t loss = 3 * tokens * 4;
    EXPECT_EQ(group.all_reduce_scalar(bytes, Reduction::sum), 2 * (tensor - 1) * (states + loss));
  }
}

TEST_F(TensorTest, EvaluationIsThatOfOneRank) {
  const auto evaluate = [&](Trainee& trainee) {
    return parallel::evaluate(
               trainee.model(), trainee.engine().hooks(), trainee.engine().group(), 7,
               Gpt2Tiny::kPositions, 2,
               [&](std::int64_t row, std::int32_t* inputs, std::int32_t* targets) {
                 const nn::Batch batch = tiny_.batch(row / 4, row % 4, 1);
                 std::copy_n(batch.ids.as<std::int32_t>(), Gpt2Tiny::kPositions, inputs);
                 std::copy_n(batch.targets.as<std::int32_t>(), Gpt2Tiny::kPositions, targets);
               },
               trainee.engine().stream())
        .loss();
  };
  const auto self = world().split(world().rank(), 0, "alone");
  Trainee alone(*self, tiny_, {});
  const double expected = evaluate(alone);
  for (const int tensor : sizes()) {
    Trainee trainee(world(), tiny_, {.tensor = tensor, .stage = 3});
    EXPECT_NEAR(evaluate(trainee), expected, 1e-6);
  }
}

TEST(TensorShares, SizesThatCannotBeSplitAreNamed) {
  const Gpt2Tiny tiny;
  test::expect_error(Code::invalid_config, {"mesh.tensor is 5", "model.n_head is 4", "1 to 4"},
                     [&] { tiny.model({.tensor = {.size = 5}}); });
}

TEST(TensorShares, WithoutItsGroupAModelOnlyHasShapes) {
  const Gpt2Tiny tiny;
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
