// SPDX-License-Identifier: Apache-2.0
// Pipelines on GPUs: PyTorch's curve in every schedule, the same bits among them, beside a tensor
// axis, and evaluation.
#include <map>
#include <tuple>

#include <gtest/gtest.h>

#include "support/mesh_test.hpp"

namespace tessera::test {
namespace {

using parallel::PipelineKind;
using parallel::PipelineShape;

class PipelineDeviceTest : public MeshTest {
 protected:
  /// Every schedule with every mesh of all ranks, as far as the layers of the model go.
  std::vector<MeshTrial> trials() {
    std::vector<MeshTrial> list;
    for (const int pipeline : {2, 4})
      for (const PipelineKind kind : parallel::pipeline_kinds()) {
        const int data = world().size() / pipeline;
        if (data == 0 || PipelineShape{kind, pipeline}.resolved().stages() > 4) continue;
        list.push_back({.mesh = {pipeline, data}, .kind = kind});
      }
    return list;
  }
};

TEST_F(PipelineDeviceTest, EveryScheduleFollowsTheReferenceCurve) {
  std::map<std::tuple<int, int, bool>, std::uint64_t> checksums;  // of the same sums
  for (MeshTrial trial : trials())
    for (const int stage : {1, 3}) {
      trial.stage = stage;
      SCOPED_TRACE(trial.to_string());
      MeshTrainee trainee(world(), tiny_, trial);
      expect_near(train(trainee, 2), reference_curve(), 1e-4);
      const std::tuple sums(trial.mesh.pipeline, trainee.model().pipeline().stages(), stage > 1);
      const std::uint64_t checksum = trainee.checksum();
      EXPECT_EQ(checksums.emplace(sums, checksum).first->second, checksum);
    }
}

TEST_F(PipelineDeviceTest, ThroughMpiToo) {
  CommOptions options;
  options.device_transport = "mpi";
  Runtime runtime(options);
  runtime.world().open_device(testing::test_device());
  for (MeshTrial trial : trials()) {
    trial.stage = 1;
    SCOPED_TRACE(trial.to_string());
    MeshTrainee trainee(runtime.world(), tiny_, trial);
    expect_near(train(trainee, 1), reference_curve(), 1e-4);
  }
}

// Stages whose ranks share the work: each axis has communicators of its own.
TEST_F(PipelineDeviceTest, BesideATensorAxis) {
  if (world().size() % 4 != 0) GTEST_SKIP() << "needs four ranks";
  for (const PipelineKind kind :
       {PipelineKind::one_forward_one_backward, PipelineKind::zero_bubble})
    for (const bool token_shards : {false, true}) {
      MeshTrial trial{.mesh = {2, world().size() / 4, 1, 2}, .stage = 1, .kind = kind};
      trial.model.sequence_parallel = token_shards;
      SCOPED_TRACE(trial.to_string());
      MeshTrainee trainee(world(), tiny_, trial);
      expect_near(train(trainee, 2), reference_curve(), 1e-4);
    }
}

TEST_F(PipelineDeviceTest, EvaluationIsThatOfOneRank) {
  MeshTrainee alone(self(), tiny_, {});
  const double expected = evaluate(alone).loss();
  for (const MeshTrial& trial : trials()) {
    SCOPED_TRACE(trial.to_string());
    MeshTrainee trainee(world(), tiny_, trial);
    EXPECT_NEAR(evaluate(trainee).loss(), expected, 1e-6);
  }
}

}  // namespace
}  // namespace tessera::test
