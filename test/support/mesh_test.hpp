// SPDX-License-Identifier: Apache-2.0
// What tests of every axis of a mesh ask: the curve of one rank or of PyTorch, evaluation, and
// checkpoints that know nothing of the mesh.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/checkpoint/reader.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/parallel/evaluation.hpp"

#include "support/mesh_trainee.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::test {

struct Curve {
  std::vector<double> losses, norms;
};

/// Losses and norms as far as `found` goes.
inline void expect_near(const Curve& found, const Curve& expected, double tolerance) {
  for (std::size_t i = 0; i < found.losses.size(); ++i) {
    EXPECT_NEAR(found.losses[i], expected.losses.at(i), tolerance) << "step " << i;
    EXPECT_NEAR(found.norms[i], expected.norms.at(i), 10 * tolerance * expected.norms.at(i))
        << "step " << i;
  }
}

/// All members are collective.
class MeshTest : public ::testing::Test {
 protected:
  explicit MeshTest(const std::string& model = "gpt2-tiny") : tiny_(model) {}
  void SetUp() override {
    set_threads(1);
    if (on_gpu()) world().open_device(testing::test_device());
  }

  Communicator& world() { return runtime_.world(); }
  static bool on_gpu() { return !testing::test_device().is_cpu(); }
  /// Many ranks on few cores, or GPUs that are emulated: tests only begin.
  bool is_slow() { return world().size() > 4 || on_gpu(); }
  Communicator& self() {
    if (!self_) self_ = world().split(world().rank(), 0, "alone");
    return *self_;
  }

  /// Of all ranks, with a tensor axis that the model and its rows allow.
  std::vector<MeshShape> tensor_meshes() {
    constexpr int kHeads = 4;
    std::vector<MeshShape> list;
    for (int tensor = 2; tensor <= kHeads; ++tensor) {
      const int data = world().size() / tensor;
      if (world().size() % tensor == 0 && data <= TinyModel::kRows)
        list.push_back({1, data, 1, tensor});
    }
    return list;
  }

  static Curve train(MeshTrainee& trainee, int steps) {
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
  Curve train_alone(MeshTrial trial) {
    trial.rows_apart |= trial.mesh.pipeline > 1;
    trial.mesh = {};
    trial.cuts = {};
    MeshTrainee trainee(self(), tiny_, trial);
    return train(trainee, trial.steps);
  }

  /// What the ranks of this rank's group of an axis count together in a step.
  static Traffic::Count sent_by_a_step(MeshTrainee& trainee, const char* axis,
                                       const char* operation) {
    Communicator& group = trainee.mesh().group(axis);
    group.traffic().reset();
    trainee.step();
    const Traffic::Count count = group.traffic().count(operation);
    const Traffic::Pause pause(group.traffic());
    return {group.all_reduce_scalar(count.bytes, Reduction::sum),
            group.all_reduce_scalar(count.messages, Reduction::sum)};
  }

  Curve reference_curve() const {
    return {tiny_.doubles("losses.fp64"), tiny_.doubles("grad_norms.fp64")};
  }

  void expect_reference_curve_in_every_stage(const std::vector<MeshTrial>& trials) {
    for (MeshTrial trial : trials)
      for (const int stage : {0, 1, 2, 3}) {
        if (is_slow() && stage % 2 == 0) continue;
        trial.stage = stage;
        SCOPED_TRACE(trial.to_string());
        MeshTrainee trainee(world(), tiny_, trial);
        expect_near(train(trainee, is_slow() ? 5 : TinyModel::kSteps), reference_curve(), 1e-5);
      }
  }

  /// Of seven rows.
  parallel::EvaluationResult evaluate(MeshTrainee& trainee) {
    return parallel::evaluate(
        trainee.model(), trainee.engine().hooks(), trainee.engine().group(), 7,
        TinyModel::kPositions, 2,
        [&](std::int64_t row, std::int32_t* inputs, std::int32_t* targets) {
          const nn::Batch batch = tiny_.batch(row / 4, row % 4, 1);
          std::copy_n(batch.ids.as<std::int32_t>(), TinyModel::kPositions, inputs);
          std::copy_n(batch.targets.as<std::int32_t>(), TinyModel::kPositions, targets);
        },
        trainee.engine().stream());
  }

  /// Each saves, and each goes on from what another has saved; on its own mesh to the same bits.
  void expect_checkpoints_fit(const std::vector<MeshTrial>& all) {
    const TemporaryFolder own;
    const std::string folder = world().broadcast_text(own.path(), 0);
    for (const MeshTrial& from : all)
      for (const bool asynchronous : {false, true}) {
        SCOPED_TRACE("saved with " + from.to_string());
        MeshTrainee saver(world(), tiny_, with_stage(from, 1));
        train(saver, 2);
        const std::uint64_t saved = saver.checksum();
        saver.engine().save_checkpoint(folder, {.tag = "a", .asynchronous = asynchronous});
        saver.engine().finish_save();
        const Curve expected = train(saver, 2);
        EXPECT_EQ(checkpoint::Reader(world(), folder + "/a.h5").weights_checksum(), saved);
        EXPECT_TRUE(checkpoint::Reader(world(), folder + "/a.h5").verify(world()).empty());
        for (const MeshTrial& to : all) {
          SCOPED_TRACE("loaded with " + to.to_string());
          MeshTrainee loader(world(), tiny_, with_stage(to, &to == &from ? 1 : 3));
          loader.engine().load_checkpoint(folder + "/a.h5");
          EXPECT_EQ(loader.checksum(), saved);
          expect_near(train(loader, 2), expected, 1e-5);
          if (&to == &from) {
            EXPECT_EQ(loader.checksum(), saver.checksum());
          }
        }
      }
  }
  void expect_checkpoints_fit(const std::vector<MeshShape>& meshes) {
    std::vector<MeshTrial> all;
    for (const MeshShape& mesh : meshes) all.push_back({.mesh = mesh});
    expect_checkpoints_fit(all);
  }

  /// The gradients of a first step, each to 1e-5 of its largest value.
  void expect_gradients_of_one_rank(MeshTrial trial) {
    trial.plain_descent = true;
    MeshTrainee trainee(world(), tiny_, trial);
    train(trainee, 1);
    trial.mesh = {};
    MeshTrainee alone(self(), tiny_, trial);
    train(alone, 1);
    std::map<std::string, std::vector<float>> expected;
    int index = 0;
    for (const auto& [name, parameter] : alone.model().parameters())
      expected[name] = alone.descent(index++);
    index = 0;
    for (const auto& [name, parameter] : trainee.model().parameters()) {
      SCOPED_TRACE(name);
      expect_descent(trainee, index++, parameter->partition, expected.at(name));
    }
  }

  Runtime runtime_;
  const TinyModel tiny_;

 private:
  static MeshTrial with_stage(MeshTrial trial, int stage) {
    trial.stage = stage;
    return trial;
  }

  static void expect_descent(MeshTrainee& trainee, int index, const nn::Partition& partition,
                             const std::vector<float>& expected) {
    float largest = 0;
    for (const float value : expected) largest = std::max(largest, std::abs(value));
    const std::vector<float> found = trainee.descent(index);
    const zero::Range owned = trainee.engine().optimizer().owned(index);
    nn::for_each_run(partition, owned.begin, owned.count,
                     [&](std::int64_t local, std::int64_t logical, std::int64_t count) {
                       for (std::int64_t i = 0; i < count; ++i)
                         ASSERT_NEAR(found[static_cast<std::size_t>(local - owned.begin + i)],
                                     expected[static_cast<std::size_t>(logical + i)],
                                     1e-5f * largest)
                             << "element " << logical + i;
                     });
  }

  std::unique_ptr<Communicator> self_;
};

}  // namespace tessera::test
