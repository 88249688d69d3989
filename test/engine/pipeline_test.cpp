// SPDX-License-Identifier: Apache-2.0
// Training a model in the stages of a pipeline: PyTorch's curve, one rank's curve, the same bits in
// every schedule, what was done against what the schedule says, and checkpoints that know nothing
// of stages.
#include <algorithm>
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
#include "tessera/parallel/pipeline_simulation.hpp"
#include "tessera/parallel/pipeline_stages.hpp"

#include "support/expect_error.hpp"
#include "support/gpt2_tiny.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_device.hpp"

namespace tessera::test {
namespace {

using parallel::PipelineKind;

struct Trial {
  int pipeline = 1;
  int tensor = 1;
  int stage = 0;
  PipelineKind kind = PipelineKind::one_forward_one_backward;
  int chunks = 0;
  int steps = 3;
  nn::ModelOptions model{};
  double dropout = 0;
  bool tied = true;
  double clipping = 1.0;
  bool keep_gathered = true;
  std::vector<int> cuts{};  // empty: by parameters
  int layers = 0;           // 0: those of the reference; else weights are drawn
};

/// The model, its optimizer and the groups that a mesh gives them.
class Trainee {
 public:
  Trainee(Communicator& world, const Gpt2Tiny& tiny, const Trial& trial)
      : tiny_(tiny), mesh_(world, MeshShape{trial.pipeline, 0, 1, trial.tensor}) {
    nn::Gpt2Config config = nn::Gpt2Config::from_json(tiny.model()->config_json(), false);
    config.embd_pdrop = config.attn_pdrop = config.resid_pdrop = trial.dropout;
    config.tie_word_embeddings = trial.tied;
    if (trial.layers > 0) config.n_layer = trial.layers;
    nn::ModelOptions options = trial.model;
    options.tensor = {mesh_.size("tensor"), mesh_.coordinate("tensor"), &mesh_.group("tensor")};
    model_ = std::make_unique<nn::Gpt2>(config, options);
    micro_batches_ = static_cast<int>(Gpt2Tiny::kRows) / mesh_.size("data");
    if (trial.pipeline > 1) take_stages(trial);
    engine::EngineOptions engine;
    engine.zero.device = testing::test_device();
    engine.zero.stage = trial.stage;
    engine.zero.dtype = trial.model.dtype;
    engine.zero.rule.lr = 0.002;
    engine.zero.rule.beta2 = 0.95;
    engine.groups.weight_decay = 0.1;
    engine.zero.gradient_clipping = trial.clipping;
    engine.zero.accumulation_steps = micro_batches_;
    engine.zero.everyone = &mesh_.group("pipeline+data+tensor");
    engine.pipeline = trial.kind;
    engine.keep_gathered = trial.keep_gathered;
    engine_.emplace(mesh_.group("data"), *model_, engine);
    if (trial.tied && trial.layers == 0)
      parallel::load_parameters(*model_, engine_->optimizer(), tiny.weights());
    else
      parallel::initialize(*model_, engine_->optimizer(), 7);
  }

  /// Each micro-batch is a row.
  engine::StepOutcome step() {
    const int rank = engine_->group().rank();
    std::vector<nn::Batch> micro;
    for (int j = 0; j < micro_batches_; ++j)
      micro.push_back(tiny_.batch(engine_->step(), rank * micro_batches_ + j, 1));
    return engine_->train_step(micro);
  }

  std::uint64_t checksum() { return parallel::weights_checksum(*model_, engine_->optimizer()); }
  engine::Engine& engine() { return *engine_; }
  nn::Gpt2& model() { return *model_; }
  Mesh& mesh() { return mesh_; }
  int micro_batches() const { return micro_batches_; }

 private:
  void take_stages(const Trial& trial) {
    const parallel::PipelineShape shape =
        parallel::PipelineShape{trial.kind, trial.pipeline, 1, trial.chunks}.resolved();
    Communicator& line = mesh_.group("pipeline");
    const auto cuts = trial.cuts.empty()
                          ? parallel::cut_layers(model_->layers(), shape.stages(), {})
                          : trial.cuts;
    nn::PipelineAxis axis = parallel::pipeline_axis(shape, cuts, line.rank());
    ends_ = parallel::make_ends(line, axis);
    axis.group = &line;
    axis.ends = ends_.get();
    model_->take_stages(axis);
  }

  const Gpt2Tiny& tiny_;
  Mesh mesh_;
  std::unique_ptr<Communicator> ends_;
  std::unique_ptr<nn::Gpt2> model_;
  int micro_batches_ = 1;
  std::optional<engine::Engine> engine_;
};

struct Curve {
  std::vector<double> losses, norms;
};

/// Sizes of pipeline and tensor axis.
struct Sizes {
  int pipeline, tensor;
};

class PipelineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    set_threads(1);
    if (!testing::test_device().is_cpu()) world().open_device(testing::test_device());
  }

  Communicator& world() { return runtime_.world(); }

  /// What this number of ranks and the batch allow.
  std::vector<Sizes> sizes(int most_tensor = 2) {
    std::vector<Sizes> list;
    for (int tensor = 1; tensor <= most_tensor; ++tensor)
      for (int pipeline = 2; pipeline <= 4; ++pipeline) {
        const int rest = world().size() / (pipeline * tensor);
        if (rest * pipeline * tensor == world().size() && (rest == 1 || rest == 2 || rest == 4))
          list.push_back({pipeline, tensor});
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
    trial.pipeline = trial.tensor = 1;
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

std::string describe(const Sizes& size, const Trial& trial) {
  return fmt::format("pipeline {}, tensor {}, stage {}, {}", size.pipeline, size.tensor,
                     trial.stage, parallel::to_string(trial.kind));
}

TEST_F(PipelineTest, FollowsTheReferenceCurveInEveryStage) {
  const Curve expected{tiny_.doubles("losses.fp64"), tiny_.doubles("grad_norms.fp64")};
  for (const Sizes& size : sizes())
    for (const int stage : {0, 1, 2, 3}) {
      const Trial trial{.pipeline = size.pipeline, .tensor = size.tensor, .stage = stage};
      SCOPED_TRACE(describe(size, trial));
      Trainee trainee(world(), tiny_, trial);
      expect_near(train(trainee, Gpt2Tiny::kSteps), expected, 1e-5);
    }
}

TEST_F(PipelineTest, DropoutAndRecomputationFollowOneRank) {
  for (const Sizes& size : sizes())
    for (const nn::Recompute recompute :
         {nn::Recompute::none, nn::Recompute::selective, nn::Recompute::full})
      for (const bool tied : {true, false}) {
        Trial trial{.pipeline = size.pipeline, .tensor = size.tensor, .stage = 2, .dropout = 0.1};
        trial.tied = tied;
        trial.model.recompute = recompute;
        SCOPED_TRACE(describe(size, trial) +
                     fmt::format(", recompute {}, tied {}", static_cast<int>(recompute), tied));
        Trainee trainee(world(), tiny_, trial);
        expect_near(train(trainee, trial.steps), train_alone(trial), 1e-5);
      }
}

std::vector<PipelineKind> kinds_with(int chunks) {
  if (chunks == 2) return {PipelineKind::interleaved, PipelineKind::zb_v};
  return {PipelineKind::gpipe, PipelineKind::one_forward_one_backward, PipelineKind::zero_bubble};
}

TEST_F(PipelineTest, EveryScheduleGivesTheSameBits) {
  const auto train_all = [&](const Sizes& size, Trial trial, int chunks) {
    std::optional<std::uint64_t> expected;
    const Curve alone = train_alone(trial);
    for (const PipelineKind kind : kinds_with(chunks))
      for (const int stage : {0, 1}) {
        trial.pipeline = size.pipeline;
        trial.tensor = size.tensor;
        trial.kind = kind;
        trial.stage = stage;
        trial.model.recompute = stage == 1 ? nn::Recompute::full : nn::Recompute::none;
        SCOPED_TRACE(describe(size, trial) + fmt::format(", {}", to_string(trial.model.dtype)));
        Trainee trainee(world(), tiny_, trial);
        const Curve curve = train(trainee, trial.steps);
        const std::uint64_t checksum = trainee.checksum();
        EXPECT_EQ(expected.value_or(checksum), checksum);
        expected = checksum;
        if (trial.model.dtype == DType::fp32) expect_near(curve, alone, 1e-5);
      }
  };
  for (const Sizes& size : sizes())
    for (const int chunks : {1, 2}) {
      Trial trial{.steps = 2, .dropout = 0.1, .layers = 6};
      train_all(size, trial, chunks);
      trial.tied = false;
      trial.model.dtype = DType::bf16;
      train_all(size, trial, chunks);
    }
}

// Without clipping nothing is summed in an order that depends on the stages.
TEST_F(PipelineTest, EveryCutGivesTheSameBitsWithoutClipping) {
  for (const Sizes& size : sizes()) {
    Trial trial{.pipeline = size.pipeline, .tensor = size.tensor, .stage = 1};
    trial.layers = 4;  // six with the embedding and the head
    const std::map<int, std::vector<std::vector<int>>> cuts = {
        {2, {{0, 1, 6}, {0, 3, 6}, {0, 5, 6}}},
        {3, {{0, 1, 2, 6}, {0, 2, 4, 6}, {0, 4, 5, 6}}},
        {4, {{0, 1, 2, 3, 6}, {0, 1, 3, 5, 6}}}};
    for (const double clipping : {0.0, 0.5}) {
      trial.clipping = clipping;
      std::optional<std::uint64_t> expected;
      std::optional<Curve> curve;
      for (const std::vector<int>& cut : cuts.at(size.pipeline)) {
        trial.cuts = cut;
        Trainee trainee(world(), tiny_, trial);
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
  for (const Sizes& size : sizes())
    for (const int chunks : {1, 2})
      for (const PipelineKind kind : kinds_with(chunks)) {
        Trial trial{.pipeline = size.pipeline, .tensor = size.tensor, .stage = 1};
        trial.kind = kind;
        trial.layers = 6;
        SCOPED_TRACE(describe(size, trial));
        Trainee trainee(world(), tiny_, trial);
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
  for (const Sizes& size : sizes(1))
    for (const PipelineKind kind : kinds_with(1)) {
      Trial trial{.pipeline = size.pipeline};
      trial.kind = kind;
      trial.layers = 6;
      SCOPED_TRACE(describe(size, trial));
      Trainee trainee(world(), tiny_, trial);
      train(trainee, 1);
      MemoryLedger& ledger = memory_ledger(Device{});
      ledger.reset_peaks();
      train(trainee, 1);
      const nn::Model& model = trainee.model();
      const std::int64_t live = trainee.engine().pipeline()->record().peak_activations;
      const std::int64_t expected = model.activation_bytes(1, Gpt2Tiny::kPositions) +
                                    (live - 1) * model.kept_bytes(1, Gpt2Tiny::kPositions);
      const auto peak = static_cast<double>(ledger.peak(Purpose::activations));
      EXPECT_NEAR(peak / static_cast<double>(expected), 1.0, 0.25);
    }
}

// Each boundary between ranks: an activation and a gradient for every micro-batch.
TEST_F(PipelineTest, TrafficEqualsTheFormulas) {
  for (const Sizes& size : sizes())
    for (const int chunks : {1, 2})
      for (const PipelineKind kind : kinds_with(chunks)) {
        Trial trial{.pipeline = size.pipeline, .tensor = size.tensor, .stage = 1};
        trial.kind = kind;
        trial.layers = 6;
        SCOPED_TRACE(describe(size, trial));
        Trainee trainee(world(), tiny_, trial);
        Communicator& line = trainee.mesh().group("pipeline");
        line.traffic().reset();
        train(trainee, 2);
        const Traffic::Count sent = line.traffic().count("send");
        const nn::PipelineAxis& axis = trainee.model().pipeline();
        std::int64_t boundaries = 0;
        for (int stage = 1; stage < axis.stages(); ++stage)
          boundaries += axis.rank_of(stage) != axis.rank_of(stage - 1) ? 1 : 0;
        const std::int64_t messages = 2 * 2 * boundaries * trainee.micro_batches();
        const std::int64_t bytes =
            Gpt2Tiny::kPositions * trainee.model().config().n_embd * std::int64_t{4};
        const Traffic::Pause pause(line.traffic());
        EXPECT_EQ(line.all_reduce_scalar(sent.messages, Reduction::sum), messages);
        EXPECT_EQ(line.all_reduce_scalar(sent.bytes, Reduction::sum), messages * bytes);
      }
}

TEST_F(PipelineTest, ParametersAreGatheredOnceAStepOrAsOftenAsUsed) {
  for (const Sizes& size : sizes(1)) {
    Trial trial{.pipeline = size.pipeline, .stage = 3, .steps = 2};
    std::optional<std::uint64_t> checksum;
    for (const bool keep : {true, false}) {
      trial.keep_gathered = keep;
      Trainee trainee(world(), tiny_, trial);
      Communicator& group = trainee.engine().group();
      group.traffic().reset();
      train(trainee, trial.steps);
      const std::int64_t gathers = trial.steps * (keep ? 1 : 2 * trainee.micro_batches());
      const std::int64_t padded = trainee.engine().optimizer().layout().padded();
      const std::int64_t each = padded / group.size() * (group.size() - 1) * 4;
      EXPECT_EQ(group.traffic().count("all_gather").bytes, gathers * each);
      EXPECT_EQ(checksum.value_or(trainee.checksum()), trainee.checksum());
      checksum = trainee.checksum();
    }
  }
}

TEST_F(PipelineTest, ACheckpointFitsAnyMesh) {
  const TemporaryFolder own;
  const std::string folder = world().broadcast_text(own.path(), 0);
  std::vector<Sizes> all = sizes();
  if (world().size() <= Gpt2Tiny::kRows && Gpt2Tiny::kRows % world().size() == 0)
    all.push_back({1, 1});
  for (const Sizes& from : all)
    for (const bool asynchronous : {false, true}) {
      SCOPED_TRACE(fmt::format("saved with pipeline {}, tensor {}", from.pipeline, from.tensor));
      Trainee saver(world(), tiny_, {.pipeline = from.pipeline, .tensor = from.tensor, .stage = 1});
      train(saver, 2);
      const std::uint64_t saved = saver.checksum();
      saver.engine().save_checkpoint(folder, {.tag = "a", .asynchronous = asynchronous});
      saver.engine().finish_save();
      const Curve expected = train(saver, 2);
      EXPECT_EQ(checkpoint::Reader(world(), folder + "/a.h5").weights_checksum(), saved);
      EXPECT_TRUE(checkpoint::Reader(world(), folder + "/a.h5").verify(world()).empty());
      for (const Sizes& to : all) {
        const bool same = to.pipeline == from.pipeline && to.tensor == from.tensor;
        Trainee loader(world(), tiny_,
                       {.pipeline = to.pipeline, .tensor = to.tensor, .stage = same ? 1 : 3});
        loader.engine().load_checkpoint(folder + "/a.h5");
        EXPECT_EQ(loader.checksum(), saved) << "loaded with pipeline " << to.pipeline;
        expect_near(train(loader, 2), expected, 1e-5);
        if (same) {
          EXPECT_EQ(loader.checksum(), saver.checksum());
        }
      }
    }
}

TEST_F(PipelineTest, EvaluationIsThatOfOneRank) {
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
  Trial trial;
  trial.layers = 6;
  Trainee alone(*self, tiny_, trial);
  const double expected = evaluate(alone);
  for (const Sizes& size : sizes())
    for (const int chunks : {1, 2})
      for (const PipelineKind kind : kinds_with(chunks)) {
        trial.pipeline = size.pipeline;
        trial.tensor = size.tensor;
        trial.kind = kind;
        SCOPED_TRACE(describe(size, trial));
        Trainee trainee(world(), tiny_, trial);
        EXPECT_NEAR(evaluate(trainee), expected, 1e-6);
      }
}

TEST_F(PipelineTest, AStepIsSkippedByAllStages) {
  for (const Sizes& size : sizes()) {
    Trainee trainee(world(), tiny_, {.pipeline = size.pipeline, .tensor = size.tensor});
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
  for (const Sizes& size : sizes()) {
    Trainee trainee(world(), tiny_, {.pipeline = size.pipeline, .tensor = size.tensor});
    expect_error(Code::not_supported, {"some stages of the model"}, [&] {
      autograd::Tape tape(autograd::Recording::off, &trainee.engine().hooks());
      trainee.model().forward_loss(tape, tiny_.batch(0, 0, 1));
    });
    if (trainee.micro_batches() == 1) continue;
    engine::EngineOptions options;
    options.zero.stage = 2;
    options.zero.accumulation_steps = trainee.micro_batches();
    options.pipeline = PipelineKind::zero_bubble;
    // Not a Trainee: an error that ranks have not agreed on leaves groups that it unwinds open.
    expect_error(Code::not_supported, {"zero-bubble", "ZeRO stage 2", "1f1b"},
                 [&] { engine::Engine(trainee.mesh().group("data"), trainee.model(), options); });
  }
}

}  // namespace
}  // namespace tessera::test
