// SPDX-License-Identifier: Apache-2.0
// Steps that are started before the one before them is finished: the outcomes of train_step(), to
// the bit, also around steps that are skipped, saves and resumes.
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/parallel/model_state.hpp"

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_device.hpp"
#include "support/tiny_model.hpp"

namespace tessera::engine {
namespace {

using test::expect_error;
using test::TinyModel;

EngineOptions options_of(int stage, DType dtype = DType::fp32) {
  EngineOptions options;
  options.zero.device = testing::test_device();
  options.zero.stage = stage;
  options.zero.dtype = dtype;
  options.zero.rule.lr = 0.002;
  options.zero.gradient_clipping = 0.5;
  options.groups.weight_decay = 0.1;
  options.schedule.type = "WarmupLR";
  options.schedule.parameters["warmup_num_steps"] = 10.0;
  return options;
}

class Trial {
 public:
  Trial(Communicator& group, const EngineOptions& options)
      : model_(tiny_.model({.dtype = options.zero.dtype})), engine_(group, *model_, options) {
    parallel::load_parameters(*model_, engine_.optimizer(), tiny_.weights());
  }
  Engine& engine() { return engine_; }

  void step_at_once() { outcomes_.push_back(engine_.train_step(next_batches(), {1.0, 2.0})); }
  void start(int ahead) {
    const StepStart started = engine_.start_step(next_batches(), {1.0, 2.0});
    EXPECT_EQ(started.step, engine_.step());
    EXPECT_EQ(started.flags[1], 2.0 * engine_.group().size());
    finish(ahead);
  }
  void finish(int most = 0) {
    while (engine_.unfinished_steps() > most) outcomes_.push_back(engine_.finish_step());
  }
  /// One step with an infinite weight, whose gradients are not finite.
  template <typename Step>
  void skip(Step&& step) {
    zero::PartitionedOptimizer& optimizer = engine_.optimizer();
    const zero::Range held = optimizer.held(0);
    std::vector<float> values(static_cast<std::size_t>(held.count));
    optimizer.master(0, held.begin, held.count, values.data());
    const std::vector<float> infinite(values.size(), std::numeric_limits<float>::infinity());
    load(infinite);
    step();
    load(values);
  }
  const std::vector<StepOutcome>& outcomes() const { return outcomes_; }
  std::uint64_t checksum() { return parallel::weights_checksum(*model_, engine_.optimizer()); }

 private:
  std::span<nn::Batch> next_batches() {
    const std::int64_t row = engine_.group().rank() % TinyModel::kRows;
    batches_.clear();
    batches_.push_back(tiny_.batch(static_cast<int>(engine_.step() % TinyModel::kSteps), row, 1));
    return batches_;
  }
  void load(const std::vector<float>& values) {
    const zero::Range held = engine_.optimizer().held(0);
    engine_.optimizer().load(0, held.begin, held.count, values.data());
    engine_.optimizer().finish_load();
  }

  TinyModel tiny_;
  std::unique_ptr<nn::Model> model_;
  Engine engine_;
  std::vector<nn::Batch> batches_;
  std::vector<StepOutcome> outcomes_;
};

void expect_same(const std::vector<StepOutcome>& a, const std::vector<StepOutcome>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].step, b[i].step);
    EXPECT_EQ(a[i].tokens, b[i].tokens);
    EXPECT_EQ(a[i].flags, b[i].flags);
    EXPECT_EQ(a[i].skipped, b[i].skipped);
    EXPECT_EQ(a[i].skipped_reason, b[i].skipped_reason);
    EXPECT_EQ(a[i].learning_rate, b[i].learning_rate) << "step " << a[i].step;
    if (a[i].skipped) continue;
    EXPECT_EQ(a[i].loss, b[i].loss) << "step " << a[i].step;
    EXPECT_EQ(a[i].gradient_norm, b[i].gradient_norm) << "step " << a[i].step;
  }
}

class StepsAhead : public ::testing::Test {
 protected:
  void SetUp() override {
    set_threads(1);
    if (runtime_.rank() == 0) mine_ = std::make_unique<test::TemporaryFolder>();
    folder_ = world().broadcast_text(mine_ ? mine_->path() : "", 0);
  }
  void TearDown() override { world().barrier(); }
  Communicator& world() { return runtime_.world(); }

  Runtime runtime_;
  std::unique_ptr<test::TemporaryFolder> mine_;
  std::string folder_;
};

TEST_F(StepsAhead, ChangeNoBit) {
  for (const int stage : {0, 1, 2, 3}) {
    const EngineOptions options = options_of(stage, stage == 2 ? DType::bf16 : DType::fp32);
    Trial usual(world(), options), ahead(world(), options);
    usual.step_at_once();
    ahead.start(1);
    usual.skip([&] { usual.step_at_once(); });
    ahead.skip([&] { ahead.start(1); });
    for (int i = 0; i < 2; ++i) {
      usual.step_at_once();
      ahead.start(1);
    }
    EXPECT_EQ(ahead.engine().unfinished_steps(), 1);
    ahead.finish();
    EXPECT_TRUE(usual.outcomes()[1].skipped);
    expect_same(usual.outcomes(), ahead.outcomes());
    EXPECT_EQ(ahead.checksum(), usual.checksum()) << stage;
    EXPECT_EQ(ahead.engine().optimizer().steps(), 3);
  }
}

// A save finds what is under way, the skipped step too, and drops no outcome.
TEST_F(StepsAhead, AreInTheCheckpoint) {
  for (const bool asynchronous : {false, true}) {
    Trial first(world(), options_of(1)), second(world(), options_of(3));
    first.start(1);
    first.skip([&] { first.start(1); });
    first.engine().save_checkpoint(folder_, {.tag = "saved", .asynchronous = asynchronous});
    EXPECT_EQ(first.engine().unfinished_steps(), 1);
    for (int i = 0; i < 2; ++i) first.start(1);
    first.finish();
    if (first.engine().saving()) {
      EXPECT_EQ(first.engine().finish_save()->error, "");
    }
    EXPECT_TRUE(first.outcomes()[1].skipped);
    second.start(1);  // of a past that loading ends
    second.engine().load_checkpoint(folder_, {.tag = "saved"});
    second.finish();
    EXPECT_EQ(second.engine().step(), 2);
    EXPECT_EQ(second.engine().optimizer().steps(), 1);
    for (int i = 0; i < 2; ++i) second.start(1);
    second.finish();
    EXPECT_EQ(second.checksum(), first.checksum());
    EXPECT_EQ(second.outcomes()[1].loss, first.outcomes()[2].loss);
    EXPECT_EQ(second.outcomes()[2].learning_rate, first.outcomes()[3].learning_rate);
  }
}

// The scale of the next step depends on whether this one overflows.
TEST_F(StepsAhead, WaitForTheScaleOfTheLoss) {
  EngineOptions options = options_of(2, DType::fp16);
  options.loss_scaler =
      optim::LossScalerOptions{.initial_scale_power = 10, .window = 2, .hysteresis = 1};
  Trial usual(world(), options), ahead(world(), options);
  usual.step_at_once();
  ahead.start(1);
  usual.skip([&] { usual.step_at_once(); });
  ahead.skip([&] { ahead.start(1); });
  for (int i = 0; i < 3; ++i) {
    usual.step_at_once();
    ahead.start(1);
  }
  ahead.finish();
  expect_same(usual.outcomes(), ahead.outcomes());
  std::vector<double> scales;
  for (const StepOutcome& outcome : ahead.outcomes()) scales.push_back(outcome.loss_scale);
  EXPECT_EQ(scales, (std::vector<double>{1024, 1024, 512, 512, 512}));
  EXPECT_EQ(ahead.checksum(), usual.checksum());
}

TEST_F(StepsAhead, KeepTheirOutcomesUntilTheyAreAskedFor) {
  Trial trial(world(), options_of(0));
  expect_error(Code::invalid_argument, {"start_step() first"},
               [&] { trial.engine().finish_step(); });
  for (int i = 0; i < 4; ++i) trial.start(4);
  EXPECT_EQ(trial.engine().unfinished_steps(), 4);
  expect_error(Code::invalid_argument, {"finish_step() them first"}, [&] { trial.step_at_once(); });
  trial.finish();
  for (int i = 0; i < 4; ++i) EXPECT_EQ(trial.outcomes()[static_cast<std::size_t>(i)].step, i + 1);
  EXPECT_EQ(trial.engine().optimizer().steps(), 4);
}

}  // namespace
}  // namespace tessera::engine
