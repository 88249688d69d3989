// SPDX-License-Identifier: Apache-2.0
// Training a model in the stages of a pipeline: PyTorch's curve, one rank's curve, the same bits in
// every schedule, what was done against what the schedule says, and checkpoints that know nothing
// of stages.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/parallel/pipeline_simulation.hpp"

#include "support/expect_error.hpp"
#include "support/mesh_test.hpp"

namespace tessera::test {
namespace {

using parallel::PipelineKind;

std::vector<PipelineKind> kinds_with(int chunks) {
  if (chunks == 2) return {PipelineKind::interleaved, PipelineKind::zb_v};
  return {PipelineKind::gpipe, PipelineKind::one_forward_one_backward, PipelineKind::zero_bubble};
}

class PipelineTest : public MeshTest {
 protected:
  /// Meshes of all ranks with a pipeline axis that the model and its rows allow.
  std::vector<MeshShape> meshes(int most_tensor = 2) {
    std::vector<MeshShape> list;
    for (int tensor = 1; tensor <= most_tensor; ++tensor)
      for (int pipeline = 2; pipeline <= 4; ++pipeline) {
        const int data = world().size() / (pipeline * tensor);
        if (data * pipeline * tensor == world().size() && (data == 1 || data == 2 || data == 4))
          list.push_back({pipeline, data, 1, tensor});
      }
    return list;
  }

  /// Every schedule on every mesh.
  std::vector<MeshTrial> schedules() {
    std::vector<MeshTrial> list;
    for (const MeshShape& mesh : meshes())
      for (const PipelineKind kind : parallel::pipeline_kinds()) {
        list.push_back({.mesh = mesh, .stage = 1, .kind = kind});
        list.back().layers = 6;
      }
    return list;
  }
};

TEST_F(PipelineTest, FollowsTheReferenceCurveInEveryStage) {
  for (const MeshShape& mesh : meshes())
    for (const int stage : {0, 1, 2, 3}) {
      const MeshTrial trial{.mesh = mesh, .stage = stage};
      SCOPED_TRACE(trial.to_string());
      MeshTrainee trainee(world(), tiny_, trial);
      expect_near(train(trainee, TinyModel::kSteps), reference_curve(), 1e-5);
    }
}

// Other rows, other lengths and other numbers of targets in every micro-batch.
TEST_F(PipelineTest, MicroBatchesOfAllShapesFollowOneRank) {
  const auto step = [&](MeshTrainee& trainee) {
    const std::int64_t at = trainee.engine().step();
    std::vector<nn::Batch> batches;
    for (int m = 0; m < trainee.micro_batches(); ++m) {
      const std::int64_t index = trainee.engine().data_rank() * trainee.micro_batches() + m;
      batches.push_back(shortened(tiny_.batch(at, index % 3, 1 + (index + at) % 2),
                                  TinyModel::kPositions - 7 * index));
      for (std::int64_t t = 0; t < 3 * index; ++t)
        batches.back().targets.as<std::int32_t>()[t] = -100;
    }
    return trainee.engine().train_step(batches).loss;
  };
  for (MeshTrial trial : schedules()) {
    trial.dropout = 0.1;
    SCOPED_TRACE(trial.to_string());
    MeshTrainee trainee(world(), tiny_, trial);
    trial.mesh = {};
    trial.rows_apart = true;
    MeshTrainee alone(self(), tiny_, trial);
    for (int i = 0; i < trial.steps; ++i) EXPECT_NEAR(step(trainee), step(alone), 1e-5);
  }
}

TEST_F(PipelineTest, DropoutAndRecomputationFollowOneRank) {
  for (const MeshShape& mesh : meshes())
    for (const nn::Recompute recompute :
         {nn::Recompute::none, nn::Recompute::selective, nn::Recompute::full})
      for (const bool tied : {true, false}) {
        MeshTrial trial{.mesh = mesh, .stage = 2, .dropout = 0.1};
        trial.tied = tied;
        trial.model.recompute = recompute;
        SCOPED_TRACE(trial.to_string());
        MeshTrainee trainee(world(), tiny_, trial);
        expect_near(train(trainee, trial.steps), train_alone(trial), 1e-5);
      }
}

// Stages 0 and 1 add up the micro-batches before ranks, 2 and 3 after them, as 1 does if it is
// told.
TEST_F(PipelineTest, EveryScheduleGivesTheSameBits) {
  const auto train_all = [&](MeshTrial trial, int chunks) {
    std::map<bool, std::uint64_t> expected;  // by whether every micro-batch is reduced
    const Curve alone = train_alone(trial);
    for (const PipelineKind kind : kinds_with(chunks))
      for (const int stage : {0, 1, 2, 3}) {
        trial.kind = kind;
        trial.stage = stage;
        trial.model.recompute = std::array{nn::Recompute::none, nn::Recompute::full,
                                           nn::Recompute::full, nn::Recompute::selective}
                                    .at(static_cast<std::size_t>(stage));
        trial.reduce_every_micro_batch = stage == 1 && kind == PipelineKind::zero_bubble;
        SCOPED_TRACE(trial.to_string());
        MeshTrainee trainee(world(), tiny_, trial);
        const Curve curve = train(trainee, trial.steps);
        const bool every = stage >= 2 || trial.reduce_every_micro_batch;
        const std::uint64_t checksum = trainee.checksum();
        EXPECT_EQ(expected.emplace(every, checksum).first->second, checksum);
        if (trial.model.dtype == DType::fp32) expect_near(curve, alone, 1e-5);
      }
  };
  for (const MeshShape& mesh : meshes())
    for (const int chunks : {1, 2}) {
      MeshTrial trial{.mesh = mesh, .steps = 2, .dropout = 0.1, .layers = 6};
      train_all(trial, chunks);
      trial.tied = false;
      trial.model.dtype = DType::bf16;
      train_all(trial, chunks);
    }
}

// Without clipping nothing is summed in an order that depends on the stages.
TEST_F(PipelineTest, EveryCutGivesTheSameBitsWithoutClipping) {
  for (const MeshShape& mesh : meshes()) {
    MeshTrial trial{.mesh = mesh, .stage = 1};
    trial.layers = 4;  // six with the embedding and the head
    const std::map<int, std::vector<std::vector<int>>> cuts = {
        {2, {{0, 1, 6}, {0, 3, 6}, {0, 5, 6}}},
        {3, {{0, 1, 2, 6}, {0, 2, 4, 6}, {0, 4, 5, 6}}},
        {4, {{0, 1, 2, 3, 6}, {0, 1, 3, 5, 6}}}};
    for (const double clipping : {0.0, 0.5}) {
      trial.clipping = clipping;
      std::optional<std::uint64_t> expected;
      std::optional<Curve> curve;
      for (const std::vector<int>& cut : cuts.at(mesh.pipeline)) {
        trial.cuts = cut;
        MeshTrainee trainee(world(), tiny_, trial);
        const Curve found = train(trainee, trial.steps);
        if (curve) expect_near(found, *curve, 1e-6);
        curve = found;
        if (clipping > 0) continue;
        EXPECT_EQ(expected.value_or(trainee.checksum()), trainee.checksum());
        expected = trainee.checksum();
      }
    }
  }
}

TEST_F(PipelineTest, DoesWhatTheScheduleSays) {
  for (const MeshTrial& trial : schedules()) {
    SCOPED_TRACE(trial.to_string());
    MeshTrainee trainee(world(), tiny_, trial);
    train(trainee, 1);
    const parallel::PipelineExecutor& executor = *trainee.engine().pipeline();
    const parallel::PipelineSchedule& schedule = executor.schedule();
    EXPECT_EQ(schedule.shape.micro_batches, trainee.micro_batches());
    const int rank = trainee.model().pipeline().rank;
    std::vector<parallel::PipelineAction> done;
    for (const auto& entry : executor.record().entries) done.push_back(entry.action);
    EXPECT_EQ(done, schedule.actions[static_cast<std::size_t>(rank)]);
    const auto outcome =
        parallel::simulate(schedule, parallel::PipelineCosts::even(schedule.shape, {}));
    EXPECT_EQ(executor.record().peak_activations, outcome.peak_activations(rank));
  }
}

// The activations of 1f1b are those that the schedule holds, times those of a micro-batch.
TEST_F(PipelineTest, HoldsAsManyActivationsAsTheSchedule) {
  for (const MeshShape& mesh : meshes(1))
    for (const PipelineKind kind : kinds_with(1)) {
      MeshTrial trial{.mesh = mesh};
      trial.kind = kind;
      trial.layers = 6;
      SCOPED_TRACE(trial.to_string());
      MeshTrainee trainee(world(), tiny_, trial);
      train(trainee, 1);
      MemoryLedger& ledger = memory_ledger(Device{});
      ledger.reset_peaks();
      train(trainee, 1);
      const nn::Model& model = trainee.model();
      const std::int64_t live = trainee.engine().pipeline()->record().peak_activations;
      const std::int64_t expected = model.activation_bytes(1, TinyModel::kPositions) +
                                    (live - 1) * model.kept_bytes(1, TinyModel::kPositions);
      const auto peak = static_cast<double>(ledger.peak(Purpose::activations));
      EXPECT_NEAR(peak / static_cast<double>(expected), 1.0, 0.25);
    }
}

// Each boundary between ranks: an activation and a gradient for every micro-batch.
TEST_F(PipelineTest, TrafficEqualsTheFormulas) {
  for (const MeshTrial& trial : schedules()) {
    SCOPED_TRACE(trial.to_string());
    MeshTrainee trainee(world(), tiny_, trial);
    Communicator& line = trainee.mesh().group("pipeline");
    line.traffic().reset();
    train(trainee, 2);
    const Traffic::Count sent = line.traffic().count("send");
    const nn::PipelineAxis& axis = trainee.model().pipeline();
    std::int64_t boundaries = 0;
    for (int stage = 1; stage < axis.stages(); ++stage)
      boundaries += axis.rank_of(stage) != axis.rank_of(stage - 1) ? 1 : 0;
    const std::int64_t messages = 2 * 2 * boundaries * trainee.micro_batches();
    const std::int64_t bytes = TinyModel::kPositions * trainee.sizes().width * std::int64_t{4};
    const Traffic::Pause pause(line.traffic());
    EXPECT_EQ(line.all_reduce_scalar(sent.messages, Reduction::sum), messages);
    EXPECT_EQ(line.all_reduce_scalar(sent.bytes, Reduction::sum), messages * bytes);
  }
}

// Weights' gradients that wait want the parameters of their unit once more; the last stage's norm
// and head, whose gradients never wait, do not.
std::int64_t uses_in_micro_batch(const nn::Model& model, PipelineKind kind,
                                 const std::string& unit) {
  const bool splits = kind == PipelineKind::zero_bubble || kind == PipelineKind::zb_v;
  return splits && unit != "final" && unit != "head" && model.in_stages() ? 3 : 2;
}

TEST_F(PipelineTest, ParametersAreGatheredOnceAStepOrAsOftenAsUsed) {
  for (MeshTrial trial : schedules()) {
    trial.stage = 3;
    trial.steps = 2;
    std::optional<std::uint64_t> checksum;
    for (const bool keep : {true, false}) {
      trial.keep_gathered = keep;
      SCOPED_TRACE(trial.to_string());
      MeshTrainee trainee(world(), tiny_, trial);
      Communicator& group = trainee.engine().group();
      group.traffic().reset();
      train(trainee, trial.steps);
      std::int64_t gathered = 0;  // elements in a step
      for (const zero::FlatUnit& unit : trainee.engine().optimizer().layout().units())
        gathered +=
            unit.padded * (keep ? 1
                                : trainee.micro_batches() *
                                      uses_in_micro_batch(trainee.model(), trial.kind, unit.name));
      const std::int64_t sent = gathered / group.size() * (group.size() - 1) * 4;
      EXPECT_EQ(group.traffic().count("all_gather").bytes, trial.steps * sent);
      EXPECT_EQ(checksum.value_or(trainee.checksum()), trainee.checksum());
      checksum = trainee.checksum();
    }
  }
}

// Of the gradients a slice stays. Whole are at most two units on their way and the two that are
// written at once, table and positions: micro-batches that wait have none.
TEST_F(PipelineTest, GradientsAreShardedInEverySchedule) {
  for (MeshTrial trial : schedules()) {
    trial.stage = 2;
    SCOPED_TRACE(trial.to_string());
    MeshTrainee trainee(world(), tiny_, trial);
    const zero::FlatLayout& layout = trainee.engine().optimizer().layout();
    std::int64_t largest = 0;
    for (const zero::FlatUnit& unit : layout.units()) largest = std::max(largest, unit.padded);
    MemoryLedger& ledger = memory_ledger(Device{});
    ledger.reset_peaks();
    train(trainee, 2);
    const Communicator& group = trainee.engine().group();
    EXPECT_EQ(ledger.peak(Purpose::gradients), layout.padded() / group.size() * 4);
    EXPECT_LE(ledger.peak(Purpose::buckets), 4 * largest * 4);
  }
}

TEST_F(PipelineTest, ACheckpointFitsAnyMesh) {
  std::vector<MeshShape> all = meshes();
  const int ranks = world().size();
  if (TinyModel::kRows % ranks == 0) all.push_back({1, ranks, 1, 1});
  expect_checkpoints_fit(all);
}

TEST_F(PipelineTest, EvaluationIsThatOfOneRank) {
  MeshTrial one;
  one.layers = 6;
  MeshTrainee alone(self(), tiny_, one);
  const double expected = evaluate(alone).loss();
  for (const MeshTrial& trial : schedules()) {
    SCOPED_TRACE(trial.to_string());
    MeshTrainee trainee(world(), tiny_, trial);
    EXPECT_NEAR(evaluate(trainee).loss(), expected, 1e-6);
  }
}

TEST_F(PipelineTest, AStepIsSkippedByAllStages) {
  for (const MeshShape& mesh : meshes()) {
    MeshTrainee trainee(world(), tiny_, {.mesh = mesh});
    zero::PartitionedOptimizer& optimizer = trainee.engine().optimizer();
    int index = 0;
    for (const auto& [name, parameter] : trainee.model().parameters()) {
      const float infinite = INFINITY;
      if (name == "transformer.ln_f.weight") optimizer.load(index, 0, 1, &infinite);
      ++index;
    }
    optimizer.finish_load();
    const std::uint64_t before = trainee.checksum();
    const engine::StepOutcome outcome = trainee.step();
    EXPECT_TRUE(outcome.skipped);
    EXPECT_NE(outcome.skipped_reason.find("transformer.wte.weight"), std::string::npos)
        << outcome.skipped_reason;
    EXPECT_EQ(trainee.checksum(), before);
  }
}

TEST_F(PipelineTest, WhatNeedsTheWholeModelSaysSo) {
  for (const MeshShape& mesh : meshes()) {
    MeshTrainee trainee(world(), tiny_, {.mesh = mesh});
    expect_error(Code::not_supported, {"some stages of the model"}, [&] {
      autograd::Tape tape(autograd::Recording::off, &trainee.engine().hooks());
      trainee.model().forward_loss(tape, tiny_.batch(0, 0, 1));
    });
    if (trainee.micro_batches() == 1) continue;
    const MeshTrial refused{.mesh = mesh,
                            .stage = 0,
                            .kind = PipelineKind::zero_bubble,
                            .reduce_every_micro_batch = true};
    expect_error(Code::not_supported, {"zero-bubble", "reduce_every_micro_batch", "1f1b"},
                 [&] { MeshTrainee(world(), tiny_, refused); });
  }
}

}  // namespace
}  // namespace tessera::test
