// SPDX-License-Identifier: Apache-2.0
// Training GPT-2 against PyTorch's fp64 curve, on every stage and rank count, and what never
// changes a bit.
#include "tessera/engine/engine.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

#include <gtest/gtest.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/parallel/model_state.hpp"

#include "support/temporary_folder.hpp"
#include "support/test_device.hpp"
#include "support/tiny_model.hpp"

namespace tessera::test {
namespace {

// An emulated GPU takes its time: there, one case stands for several that differ little.
template <typename T>
std::vector<T> cases(std::initializer_list<T> all, std::initializer_list<T> on_a_gpu) {
  return testing::on_cuda() ? on_a_gpu : all;
}

struct Trial {
  CommOptions comm;
  engine::EngineOptions engine;
  nn::ModelOptions model;
  int steps = testing::on_cuda() ? 2 : 3;
};

engine::EngineOptions reference_options(int stage) {
  engine::EngineOptions options;
  options.zero.device = testing::test_device();
  options.zero.stage = stage;
  options.zero.rule.lr = 0.002;
  options.zero.rule.beta2 = 0.95;
  options.groups.weight_decay = 0.1;
  options.zero.gradient_clipping = 1.0;
  return options;
}

// Rows of each rank for 4 rows over `ranks`: as even as possible, the first ranks have more.
std::pair<std::int64_t, std::int64_t> rows_of(int rank, int ranks, std::int64_t rows) {
  const std::int64_t base = rows / ranks, extra = rows % ranks;
  const std::int64_t first = rank * base + std::min<std::int64_t>(rank, extra);
  return {first, base + (rank < extra ? 1 : 0)};
}

struct Trained {
  std::uint64_t checksum = 0;
  std::vector<double> losses;
  std::vector<double> norms;
  std::map<std::string, Traffic::Count> traffic;
};

class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override { set_threads(1); }

  // The 4 rows of each step in `accumulation` micro-batches, each dealt to the ranks.
  static std::vector<nn::Batch> batches(const TinyModel& tiny, int step, int rank, int ranks,
                                        int accumulation) {
    std::vector<nn::Batch> result;
    const std::int64_t rows = TinyModel::kRows / accumulation;
    for (int j = 0; j < accumulation; ++j) {
      const auto [first, count] = rows_of(rank, ranks, rows);
      result.push_back(tiny.batch(step, j * rows + first, count));
    }
    return result;
  }

  static Trained train(const Trial& trial, const std::function<void(engine::Engine&)>& after = {}) {
    Runtime runtime(trial.comm);
    const TinyModel tiny;
    const auto model = tiny.model(trial.model);
    engine::EngineOptions options = trial.engine;
    options.zero.dtype = trial.model.dtype;
    if (trial.model.dtype == DType::fp16)
      options.loss_scaler = optim::LossScalerOptions{.static_scale = 1024};
    engine::Engine engine(runtime.world(), *model, options);
    parallel::load_parameters(*model, engine.optimizer(), tiny.weights());
    runtime.world().traffic().reset();
    Trained trained;
    for (int step = 0; step < trial.steps; ++step) {
      auto micro =
          batches(tiny, step, runtime.rank(), runtime.size(), options.zero.accumulation_steps);
      const engine::StepOutcome outcome = engine.train_step(micro);
      EXPECT_FALSE(outcome.skipped) << outcome.skipped_reason;
      trained.losses.push_back(outcome.loss);
      trained.norms.push_back(outcome.gradient_norm);
    }
    trained.traffic = runtime.world().traffic().counts();
    trained.checksum = parallel::weights_checksum(*model, engine.optimizer());
    if (after) after(engine);
    return trained;
  }

  static int ranks() { return launcher_size(); }
};

// The keys' bias moves every score of a query alike, so its gradient is zero but for rounding,
// which Adam scales up to steps of full size: those elements say nothing.
bool is_key_bias(const std::string& name, std::int64_t element, std::int64_t elements) {
  return name.ends_with("c_attn.bias") && element * 3 / elements == 1;
}

void expect_final_weights(engine::Engine& engine, const TinyModel& tiny) {
  int index = 0;
  for (const auto& [name, parameter] : engine.model().parameters()) {
    const auto expected = tiny.doubles("final.fp64." + name);
    const zero::Range owned = engine.optimizer().owned(index);
    std::vector<float> found(static_cast<std::size_t>(owned.count));
    engine.optimizer().master(index++, owned.begin, owned.count, found.data());
    for (std::int64_t j = 0; j < owned.count; ++j) {
      const std::int64_t element = owned.begin + j;
      if (is_key_bias(name, element, parameter->shape().numel())) continue;
      ASSERT_NEAR(found[static_cast<std::size_t>(j)], expected[static_cast<std::size_t>(element)],
                  2e-4)
          << name << " element " << element;
    }
  }
}

TEST_F(EngineTest, FollowsTheReferenceCurveInEveryStage) {
  const TinyModel tiny;
  const auto losses = tiny.doubles("losses.fp64");
  const auto norms = tiny.doubles("grad_norms.fp64");
  for (const int stage : cases({0, 1, 2, 3}, {3})) {
    Trial trial;
    trial.engine = reference_options(stage);
    trial.steps = TinyModel::kSteps;
    const Trained trained =
        train(trial, [&](engine::Engine& engine) { expect_final_weights(engine, tiny); });
    for (std::size_t step = 0; step < losses.size(); ++step) {
      EXPECT_NEAR(trained.losses[step], losses[step], 1e-5)
          << "stage " << stage << " step " << step;
      EXPECT_NEAR(trained.norms[step], norms[step], 1e-4 * norms[step]) << "stage " << stage;
    }
  }
}

TEST_F(EngineTest, Fp16StaysNearTheReferenceCurve) {
  const auto losses = TinyModel().doubles("losses.fp64");
  const auto norms = TinyModel().doubles("grad_norms.fp64");
  Trial trial;
  trial.engine = reference_options(2);
  trial.model.dtype = DType::fp16;
  trial.steps = testing::on_cuda() ? 4 : TinyModel::kSteps;
  const Trained trained = train(trial);
  for (std::size_t step = 0; step < trained.losses.size(); ++step) {
    EXPECT_NEAR(trained.losses[step], losses[step], 2e-3) << "step " << step;
    EXPECT_NEAR(trained.norms[step], norms[step], 1e-2 * norms[step]) << "step " << step;
  }
}

TEST_F(EngineTest, StagesGiveTheSameBits) {
  for (const DType dtype : cases({DType::fp32, DType::bf16, DType::fp16}, {DType::bf16})) {
    std::vector<Trained> runs;
    for (int stage = 0; stage <= 3; ++stage) {
      Trial trial;
      trial.engine = reference_options(stage);
      trial.model.dtype = dtype;
      runs.push_back(train(trial));
    }
    for (int stage = 1; stage <= 3; ++stage) {
      EXPECT_EQ(runs[static_cast<std::size_t>(stage)].checksum, runs[0].checksum)
          << "stage " << stage;
      EXPECT_EQ(runs[static_cast<std::size_t>(stage)].losses, runs[0].losses);
      EXPECT_EQ(runs[static_cast<std::size_t>(stage)].norms, runs[0].norms);
    }
  }
}

TEST_F(EngineTest, StagesGiveTheSameBitsWhenGradientsAreSentInFp32) {
  const auto run = [&](int stage, DType sent) {
    Trial trial;
    trial.engine = reference_options(stage);
    trial.engine.zero.communication_dtype = sent;
    trial.model.dtype = DType::bf16;
    return train(trial);
  };
  const Trained expected = run(0, DType::fp32);
  for (const int stage : cases({1, 2, 3}, {2}))
    EXPECT_EQ(run(stage, DType::fp32).checksum, expected.checksum) << "stage " << stage;
  // On CPUs sums are in fp32 whatever is sent, and rounded to bf16 once.
  if (!testing::on_cuda()) {
    EXPECT_EQ(run(2, DType::bf16).checksum, expected.checksum);
  }
}

TEST_F(EngineTest, AccumulationHasTwoClassesAndOneWhenReducedEveryMicroBatch) {
  if (ranks() > 2) return;  // 4 rows in 2 micro-batches feed two ranks
  for (const DType dtype : cases({DType::fp32, DType::bf16, DType::fp16}, {DType::bf16})) {
    const auto run = [&](int stage, bool every) {
      Trial trial;
      trial.engine = reference_options(stage);
      trial.engine.zero.accumulation_steps = 2;
      trial.engine.zero.reduce_every_micro_batch = every;
      trial.model.dtype = dtype;
      return train(trial);
    };
    const Trained local = run(0, false), reduced = run(2, false);
    EXPECT_EQ(run(1, false).checksum, local.checksum);
    EXPECT_EQ(run(3, false).checksum, reduced.checksum);
    for (int stage = 0; stage <= 3; ++stage)
      EXPECT_EQ(run(stage, true).checksum, reduced.checksum) << "stage " << stage;
    const double tolerance = dtype == DType::fp32 ? 1e-5 : 2e-2;
    for (std::size_t i = 0; i < local.losses.size(); ++i)
      EXPECT_NEAR(local.losses[i], reduced.losses[i], tolerance);
  }
}

TEST_F(EngineTest, NothingAboutTheTransferChangesABit) {
  for (const int stage : cases({0, 1, 2, 3}, {3})) {
    const auto run = [&](const std::function<void(Trial&)>& change) {
      Trial trial;
      trial.engine = reference_options(stage);
      trial.model.dtype = DType::bf16;
      change(trial);
      return train(trial).checksum;
    };
    const std::uint64_t plain = run([](Trial&) {});
    EXPECT_EQ(run([](Trial& s) { s.engine.zero.reduce_bucket_size = 1; }), plain) << stage;
    EXPECT_EQ(run([](Trial& s) { s.engine.zero.reduce_bucket_size = 5000; }), plain) << stage;
    EXPECT_EQ(run([](Trial& s) { s.engine.zero.gather_bucket_size = 1; }), plain) << stage;
    EXPECT_EQ(run([](Trial& s) { s.engine.zero.overlap = false; }), plain) << stage;
    EXPECT_EQ(run([](Trial& s) { s.engine.zero.prefetch_elements = 0; }), plain) << stage;
    EXPECT_EQ(run([](Trial& s) { s.model.recompute = nn::Recompute::full; }), plain) << stage;
    if (testing::on_cuda()) continue;  // the next test
    EXPECT_EQ(run([](Trial& s) { s.model.recompute = nn::Recompute::selective; }), plain) << stage;
  }
}

// On GPUs it computes the activation apart from the product, so that it can repeat it to the bit:
// rounded once more than in one step.
TEST_F(EngineTest, SelectiveRecomputationFollowsTheSameCurveOnGpus) {
  if (!testing::on_cuda()) GTEST_SKIP() << "the same bits on CPUs";
  const auto run = [&](int stage, nn::Recompute recompute) {
    Trial trial;
    trial.engine = reference_options(stage);
    trial.model.dtype = DType::bf16;
    trial.model.recompute = recompute;
    return train(trial);
  };
  const Trained selective = run(2, nn::Recompute::selective), none = run(2, nn::Recompute::none);
  ASSERT_EQ(selective.losses.size(), none.losses.size());
  for (std::size_t i = 0; i < none.losses.size(); ++i)
    EXPECT_NEAR(selective.losses[i], none.losses[i], 2e-2) << i;
  EXPECT_EQ(run(3, nn::Recompute::selective).checksum, selective.checksum);
}

TEST_F(EngineTest, TransportsWithOneNodeMapGiveTheSameBits) {
  if (testing::on_cuda()) GTEST_SKIP() << "between GPUs the sums are NCCL's";
  std::vector<std::vector<int>> two_nodes(2);
  for (int r = 0; r < ranks(); ++r) two_nodes[r < (ranks() + 1) / 2 ? 0 : 1].push_back(r);
  std::vector<std::vector<std::vector<int>>> maps = {{}};
  if (ranks() > 1) maps.push_back(two_nodes);
  for (const auto& nodes : maps)
    for (const int stage : {0, 3}) {
      const auto run = [&](const std::string& transport) {
        Trial trial;
        trial.engine = reference_options(stage);
        trial.comm.transport = transport;
        trial.comm.nodes = nodes;
        return train(trial).checksum;
      };
      const std::uint64_t mpi = run("mpi");
      EXPECT_EQ(run("shm"), mpi);
      if (ranks() > 1) {
        EXPECT_EQ(run("hybrid"), mpi);
      }
    }
}

// Bytes over all ranks: (N - 1) x elements x size for each reduce-scatter or all-gather of the
// whole model.
TEST_F(EngineTest, TrafficEqualsTheFormulas) {
  const std::int64_t others = ranks() - 1;
  for (int stage = 0; stage <= 3; ++stage)
    for (const auto& [every, sent] : cases<std::pair<bool, DType>>(
             {{false, DType::fp32}, {true, DType::fp32}, {false, DType::bf16}},
             {{false, DType::fp32}})) {
      const int accumulation = ranks() <= 2 ? 2 : 1;
      Trial trial;
      trial.engine = reference_options(stage);
      trial.engine.zero.accumulation_steps = accumulation;
      trial.engine.zero.reduce_every_micro_batch = every;
      trial.engine.zero.communication_dtype = sent;
      std::int64_t padded = 0;
      std::map<std::string, std::int64_t> all;
      const Trained trained = train(trial, [&](engine::Engine& engine) {
        padded = engine.optimizer().layout().padded();
        const Traffic::Pause pause(engine.group().traffic());
        for (const char* operation : {"all_reduce", "reduce_scatter", "all_gather"})
          all[operation] = engine.group().all_reduce_scalar(
              engine.group().traffic().count(operation).bytes, Reduction::sum);
      });
      const std::int64_t once = others * padded * 4 * trial.steps;
      const std::int64_t reductions = stage >= 2 || every ? accumulation : 1;
      const std::int64_t reduced = reductions * once * static_cast<std::int64_t>(size_of(sent)) / 4;
      EXPECT_EQ(all["all_reduce"], stage == 0 ? 2 * reduced : 0) << "stage " << stage;
      EXPECT_EQ(all["reduce_scatter"], stage == 0 ? 0 : reduced) << "stage " << stage;
      const std::int64_t gathers = stage == 0 ? 0 : stage == 3 ? 2 * accumulation : 1;
      EXPECT_EQ(all["all_gather"], gathers * once) << "stage " << stage;
    }
}

TEST_F(EngineTest, ACheckpointContinuesBitForBitInAnyStage) {
  for (const DType dtype : cases({DType::fp32, DType::bf16, DType::fp16}, {DType::bf16})) {
    Trial whole;
    whole.engine = reference_options(0);
    whole.model.dtype = dtype;
    whole.steps = 5;
    const std::uint64_t expected = train(whole).checksum;
    const TemporaryFolder folder;
    // Rank 0's folder serves all: the others' are not used.
    Runtime runtime;
    const std::string folder_name = runtime.world().broadcast_text(folder.path(), 0);
    Trial half = whole;
    half.steps = 2;
    half.engine = reference_options(2);
    train(half, [&](engine::Engine& engine) { engine.save_checkpoint(folder_name, {.tag = "a"}); });
    for (const int stage : {0, 1, 3}) {
      const TinyModel tiny;
      const auto model = tiny.model(whole.model);
      engine::EngineOptions options = reference_options(stage);
      options.zero.dtype = dtype;
      if (dtype == DType::fp16)
        options.loss_scaler = optim::LossScalerOptions{.static_scale = 1024};
      engine::Engine engine(runtime.world(), *model, options);
      engine.load_checkpoint(folder_name, {.tag = "a"});
      for (int step = 2; step < 5; ++step) {
        auto micro = batches(tiny, step, runtime.rank(), runtime.size(), 1);
        EXPECT_EQ(engine.train_step(micro).step, step + 1);
      }
      EXPECT_EQ(parallel::weights_checksum(*model, engine.optimizer()), expected)
          << "stage " << stage;
    }
    runtime.world().barrier();
  }
}

/// One engine at work, with what each of its steps did.
struct Scaled {
  Scaled(Communicator& world, DType dtype, int stage, const optim::LossScalerOptions& scaler)
      : model(tiny.model({.dtype = dtype})) {
    engine::EngineOptions options = reference_options(stage);
    options.zero.dtype = dtype;
    options.loss_scaler = scaler;
    engine = std::make_unique<engine::Engine>(world, *model, options);
    parallel::load_parameters(*model, engine->optimizer(), tiny.weights());
  }
  void train(int steps) {
    Communicator& group = engine->group();
    for (int i = 0; i < steps; ++i) {
      const auto [first, count] = rows_of(group.rank(), group.size(), TinyModel::kRows);
      std::vector<nn::Batch> micro;
      micro.push_back(tiny.batch(engine->step() % TinyModel::kSteps, first, count));
      outcomes.push_back(engine->train_step(micro));
    }
  }
  std::vector<double> of_steps(double engine::StepOutcome::*what) const {
    std::vector<double> values;
    for (const engine::StepOutcome& outcome : outcomes) values.push_back(outcome.*what);
    return values;
  }
  std::uint64_t checksum() { return parallel::weights_checksum(*model, engine->optimizer()); }

  TinyModel tiny;
  std::unique_ptr<nn::Model> model;
  std::unique_ptr<engine::Engine> engine;
  std::vector<engine::StepOutcome> outcomes;
};

// Powers of two only move the exponent: neither a scale nor its growth may show in fp32.
TEST_F(EngineTest, LossScalesLeaveNoTraceInFp32) {
  if (testing::on_cuda()) GTEST_SKIP() << "scales are the host's";
  Runtime runtime;
  Scaled plain(runtime.world(), DType::fp32, 1, {.static_scale = 1});
  Scaled growing(runtime.world(), DType::fp32, 1, {.initial_scale_power = 3, .window = 1});
  plain.train(6);
  growing.train(6);
  EXPECT_EQ(growing.of_steps(&engine::StepOutcome::loss_scale),
            (std::vector<double>{8, 8, 16, 32, 64, 128}));
  EXPECT_EQ(growing.of_steps(&engine::StepOutcome::gradient_norm),
            plain.of_steps(&engine::StepOutcome::gradient_norm));
  EXPECT_EQ(growing.checksum(), plain.checksum());
}

// Every overflow is seen by all ranks, changes nothing but the scale, and the search for a scale
// that fits ends.
TEST_F(EngineTest, OverflowsAreSkippedUntilTheScaleFits) {
  Runtime runtime;
  std::vector<std::uint64_t> checksums;
  for (const int stage : cases({0, 1, 2, 3}, {3})) {
    Scaled run(runtime.world(), DType::fp16, stage,
               {.initial_scale_power = 30, .window = 4, .hysteresis = 2});
    const std::uint64_t before = run.checksum();
    run.train(1);
    EXPECT_TRUE(run.outcomes[0].skipped);
    EXPECT_NE(run.outcomes[0].skipped_reason.find("not finite"), std::string::npos);
    EXPECT_EQ(run.checksum(), before);
    EXPECT_EQ(run.engine->loss_scaler()->scale(), 0x1p30);  // one overflow is tolerated
    while (run.outcomes.back().skipped && run.outcomes.size() < 40) run.train(1);
    const auto skips = static_cast<std::int64_t>(run.outcomes.size()) - 1;
    EXPECT_GT(skips, 5);
    EXPECT_EQ(run.outcomes.back().loss_scale, std::ldexp(1.0, static_cast<int>(31 - skips)));
    EXPECT_EQ(run.engine->step(), skips + 1);
    EXPECT_EQ(run.engine->optimizer().steps(), 1);
    EXPECT_EQ(run.outcomes.back().learning_rate, run.outcomes[0].learning_rate);
    EXPECT_TRUE(std::isfinite(run.outcomes.back().gradient_norm));
    run.train(6);
    checksums.push_back(run.checksum());
  }
  EXPECT_NE(checksums[0], 0u);
  EXPECT_EQ(checksums, std::vector<std::uint64_t>(checksums.size(), checksums[0]));
}

TEST_F(EngineTest, OverflowAtTheSmallestScaleEndsWithTheParametersName) {
  Runtime runtime;
  Scaled run(runtime.world(), DType::fp16, 2,
             {.initial_scale_power = 30, .hysteresis = 1, .minimum = 0x1p29});
  run.train(1);
  try {
    run.train(1);
    FAIL() << "the second step overflows at the smallest scale";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::not_a_number);
    const std::string text = error.what();
    for (const char* part : {"step 2", "transformer.", "smallest loss scale", "min_loss_scale"})
      EXPECT_NE(text.find(part), std::string::npos) << text;
  }
}

TEST_F(EngineTest, ALossScalerContinuesWhereItWas) {
  if (testing::on_cuda()) GTEST_SKIP() << "scales are the host's";
  const optim::LossScalerOptions scaler{.initial_scale_power = 25, .window = 3, .hysteresis = 2};
  Runtime runtime;
  const TemporaryFolder folder;
  const std::string name = runtime.world().broadcast_text(folder.path(), 0);
  Scaled whole(runtime.world(), DType::fp16, 1, scaler);
  whole.train(16);
  Scaled first(runtime.world(), DType::fp16, 0, scaler);
  first.train(5);  // inside a window, with part of the hysteresis used up
  EXPECT_EQ(first.engine->loss_scaler()->state().hysteresis, 1);
  first.engine->save_checkpoint(name, {.tag = "a"});
  Scaled second(runtime.world(), DType::fp16, 3, scaler);
  second.engine->load_checkpoint(name, {.tag = "a"});
  EXPECT_EQ(second.engine->loss_scaler()->state(), first.engine->loss_scaler()->state());
  second.train(11);
  EXPECT_EQ(second.checksum(), whole.checksum());
  EXPECT_EQ(second.engine->loss_scaler()->state(), whole.engine->loss_scaler()->state());
  // The fp32 masters fit a run of any type; one without a scaler leaves its state aside.
  Scaled wide(runtime.world(), DType::fp32, 2, {.static_scale = 2});
  wide.engine->load_checkpoint(name, {.tag = "a"});
  EXPECT_EQ(wide.checksum(), first.checksum());
  EXPECT_EQ(wide.engine->loss_scaler()->scale(), 2);
  runtime.world().barrier();
}

TEST_F(EngineTest, ABatchWithoutTargetsIsRefused) {
  Runtime runtime;
  const TinyModel tiny;
  const auto model = tiny.model();
  engine::Engine engine(runtime.world(), *model, reference_options(0));
  std::vector<nn::Batch> micro = {tiny.batch(0, 0, 1)};
  std::fill_n(micro[0].targets.as<std::int32_t>(), TinyModel::kPositions, -100);
  EXPECT_THROW(engine.train_step(micro), Error);
}

}  // namespace
}  // namespace tessera::test
