// SPDX-License-Identifier: Apache-2.0
// What tests of every axis of a mesh ask: the curve of one rank or of PyTorch, evaluation, and
// checkpoints that know nothing of the mesh.
#pragma once

#include <algorithm>
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
  void SetUp() override {
    set_threads(1);
    if (!testing::test_device().is_cpu()) world().open_device(testing::test_device());
  }

  Communicator& world() { return runtime_.world(); }
  Communicator& self() {
    if (!self_) self_ = world().split(world().rank(), 0, "alone");
    return *self_;
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

  Curve reference_curve() const {
    return {tiny_.doubles("losses.fp64"), tiny_.doubles("grad_norms.fp64")};
  }

  /// Of seven rows.
  parallel::EvaluationResult evaluate(MeshTrainee& trainee) {
    return parallel::evaluate(
        trainee.model(), trainee.engine().hooks(), trainee.engine().group(), 7,
        Gpt2Tiny::kPositions, 2,
        [&](std::int64_t row, std::int32_t* inputs, std::int32_t* targets) {
          const nn::Batch batch = tiny_.batch(row / 4, row % 4, 1);
          std::copy_n(batch.ids.as<std::int32_t>(), Gpt2Tiny::kPositions, inputs);
          std::copy_n(batch.targets.as<std::int32_t>(), Gpt2Tiny::kPositions, targets);
        },
        trainee.engine().stream());
  }

  /// Each saves, and each goes on from what another has saved; on its own mesh to the same bits.
  void expect_checkpoints_fit(const std::vector<MeshShape>& all) {
    const TemporaryFolder own;
    const std::string folder = world().broadcast_text(own.path(), 0);
    for (const MeshShape& from : all)
      for (const bool asynchronous : {false, true}) {
        SCOPED_TRACE("saved with " + from.to_string());
        MeshTrainee saver(world(), tiny_, {.mesh = from, .stage = 1});
        train(saver, 2);
        const std::uint64_t saved = saver.checksum();
        saver.engine().save_checkpoint(folder, {.tag = "a", .asynchronous = asynchronous});
        saver.engine().finish_save();
        const Curve expected = train(saver, 2);
        EXPECT_EQ(checkpoint::Reader(world(), folder + "/a.h5").weights_checksum(), saved);
        EXPECT_TRUE(checkpoint::Reader(world(), folder + "/a.h5").verify(world()).empty());
        for (const MeshShape& to : all) {
          SCOPED_TRACE("loaded with " + to.to_string());
          MeshTrainee loader(world(), tiny_, {.mesh = to, .stage = to == from ? 1 : 3});
          loader.engine().load_checkpoint(folder + "/a.h5");
          EXPECT_EQ(loader.checksum(), saved);
          expect_near(train(loader, 2), expected, 1e-5);
          if (to == from) {
            EXPECT_EQ(loader.checksum(), saver.checksum());
          }
        }
      }
  }

  Runtime runtime_;
  const Gpt2Tiny tiny_;

 private:
  std::unique_ptr<Communicator> self_;
};

}  // namespace tessera::test
