// SPDX-License-Identifier: Apache-2.0
// Gradients that are not finite, unused and frozen parameters, clipping, and calls that are
// refused.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"

#include "zero/training.hpp"
#include "zero/world.hpp"

namespace tessera::zero {
namespace {

using testing::Outcome;
using testing::usual_options;
using testing::world;

void start(PartitionedOptimizer& optimizer) {
  testing::declare(optimizer, testing::awkward_model());
  optimizer.commit();
  testing::load_initial_values(optimizer);
}

/// A micro-batch whose gradient is zero except for element `index` of a parameter, on the last
/// rank.
void backward_with(PartitionedOptimizer& optimizer, const std::string& name, std::int64_t index,
                   float value) {
  const int p = optimizer.layout().find(name);
  const int unit = optimizer.layout().parameter(p).unit;
  optimizer.attach_gradients(unit);
  std::vector<bool> written(static_cast<std::size_t>(optimizer.layout().unit(unit).parameters),
                            false);
  written[static_cast<std::size_t>(p - optimizer.layout().unit(unit).first_parameter)] = true;
  auto* gradient = static_cast<float*>(optimizer.gradient_data(p));
  for (std::int64_t i = 0; i < optimizer.layout().parameter(p).numel(); ++i) gradient[i] = 0;
  if (world().rank() == world().size() - 1) gradient[index] = value;
  optimizer.gradients_ready(unit, written);
  optimizer.end_micro_batch();
}

TEST(NonFiniteGradients, SkipTheStepOnEveryRankAndAreNamed) {
  for (const int stage : {0, 1, 2, 3}) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      PartitionedOptimizer optimizer(world(), usual_options(stage, DType::fp32));
      start(optimizer);
      testing::one_step(optimizer);
      const Outcome before = testing::outcome(optimizer);
      backward_with(optimizer, "h.1.weight", 20010, bad);
      const StepResult result = optimizer.step();
      EXPECT_FALSE(result.applied);
      EXPECT_FALSE(std::isfinite(result.grad_norm));
      EXPECT_EQ(result.non_finite_parameter, "h.1.weight");
      const int p = optimizer.layout().find("h.1.weight");
      const Range owner = optimizer.layout().owned(p, result.non_finite_owner);
      EXPECT_TRUE(owner.begin <= 20010 && 20010 < owner.end());
      EXPECT_NE(result.skipped_reason.find("h.1.weight"), std::string::npos);
      EXPECT_TRUE(testing::outcome(optimizer) == before);
      EXPECT_EQ(optimizer.steps(), 1);
      EXPECT_TRUE(testing::one_step(optimizer).applied);
    }
  }
}

TEST(NonFiniteGradients, OfSeveralParametersNameTheFirst) {
  PartitionedOptimizer optimizer(world(), usual_options(2, DType::fp32));
  start(optimizer);
  for (const char* name : {"ln.weight", "wte"}) {
    const int p = optimizer.layout().find(name);
    const int unit = optimizer.layout().parameter(p).unit;
    optimizer.attach_gradients(unit);
    auto* gradient = static_cast<float*>(optimizer.gradient_data(p));
    for (std::int64_t i = 0; i < optimizer.layout().parameter(p).numel(); ++i)
      gradient[i] = std::numeric_limits<float>::quiet_NaN();
    std::vector<bool> written(static_cast<std::size_t>(optimizer.layout().unit(unit).parameters),
                              false);
    written[0] = true;
    optimizer.gradients_ready(unit, written);
  }
  optimizer.end_micro_batch();
  const StepResult result = optimizer.step();
  EXPECT_EQ(result.non_finite_parameter, "wte");
  EXPECT_EQ(result.non_finite_owner, 0);
}

TEST(NonFiniteGradients, OfFp16AppearInTheSumOverRanks) {
  for (const int stage : {0, 1, 2, 3}) {
    PartitionedOptimizer optimizer(world(), usual_options(stage, DType::fp16));
    start(optimizer);
    const Outcome before = testing::outcome(optimizer);
    const auto reduce = [&](float value) {
      const int p = optimizer.layout().find("wte"), unit = optimizer.layout().parameter(p).unit;
      optimizer.attach_gradients(unit);
      auto* gradient = static_cast<fp16*>(optimizer.gradient_data(p));
      for (std::int64_t i = 0; i < optimizer.layout().parameter(p).numel(); ++i)
        gradient[i] = fp16::from_float(i == 7 ? value : 0.0f);
      optimizer.gradients_ready(unit);
      optimizer.end_micro_batch();
      return optimizer.step({.loss_scale = 1024});
    };
    // Every rank's gradient is finite: 60000 of each are 65504 at most only on one rank.
    const StepResult result = reduce(60000);
    EXPECT_EQ(result.applied, world().size() == 1);
    if (!result.applied) {
      EXPECT_EQ(result.non_finite_parameter, "wte");
      EXPECT_TRUE(testing::outcome(optimizer) == before);
    }
    const StepResult next = reduce(1024);
    EXPECT_TRUE(next.applied);
    EXPECT_DOUBLE_EQ(next.grad_norm, world().size());
  }
}

TEST(Clipping, ScalesByTheGlobalNorm) {
  for (const int stage : {0, 3}) {
    Options options = usual_options(stage, DType::fp32);
    options.gradient_clipping = 2;
    PartitionedOptimizer optimizer(world(), options);
    start(optimizer);
    backward_with(optimizer, "wte", 5, 8);
    const StepResult result = optimizer.step();
    EXPECT_DOUBLE_EQ(result.grad_norm, 8);
    EXPECT_DOUBLE_EQ(result.clip_coefficient, 2 / (8 + 1e-6));
    const int p = optimizer.layout().find("wte");
    if (const Range own = optimizer.owned(p); own.count > 5 && own.begin == 0) {
      EXPECT_NEAR(optimizer.state(p, "exp_avg")[5], 0.1 * 2, 1e-6);
    }
    // Loss scaling divides the norm before it is clipped, and the gradient once.
    backward_with(optimizer, "wte", 5, 8);
    const StepResult scaled = optimizer.step({.loss_scale = 8});
    EXPECT_DOUBLE_EQ(scaled.grad_norm, 1);
    EXPECT_DOUBLE_EQ(scaled.clip_coefficient, 1);
  }
}

TEST(UnusedParameters, CountAsZeroAndAreSaidOnce) {
  std::vector<std::string> said;
  set_log_sink([&](LogLevel, const std::string& line) { said.push_back(line); });
  for (const int k : {1, 2}) {
    for (const int stage : {0, 1, 2, 3}) {
      Options options = usual_options(stage, DType::fp32);
      options.accumulation_steps = k;
      PartitionedOptimizer optimizer(world(), options);
      testing::declare(optimizer,
                       {{"unit", {{"used", {1000}, {}}, {"sometimes unused", {67}, {}}}}});
      optimizer.commit();
      testing::load_initial_values(optimizer);
      const int unused = 1;
      // Stale values of the step before must not count.
      testing::one_step(optimizer);
      const Outcome before = testing::outcome(optimizer);
      for (int m = 0; m < k; ++m)
        testing::micro_batch(optimizer, m, {.used = [&](int p) { return p != unused; }});
      optimizer.step();
      const Outcome after = testing::outcome(optimizer);
      const auto index = static_cast<std::size_t>(unused);
      for (std::size_t i = 0; i < after.exp_avg[index].size(); ++i)
        EXPECT_FLOAT_EQ(testing::to_float(after.exp_avg[index][i]),
                        0.9f * testing::to_float(before.exp_avg[index][i]));
    }
  }
  set_log_sink(nullptr);
  std::size_t lines = 0;
  for (const std::string& line : said)
    lines += line.find("sometimes unused") != std::string::npos ? 1 : 0;
  EXPECT_EQ(lines, world().rank() == 0 ? 1u : 0u);
}

TEST(UnusedParameters, MayBeUsedInOneMicroBatchOnly) {
  // The sum over micro-batches must be that of the one that wrote, in both accumulation classes.
  for (const int stage : {0, 1, 2, 3}) {
    for (const int writer : {0, 1}) {
      Options options = usual_options(stage, DType::fp32);
      options.accumulation_steps = 2;
      options.gradient_clipping = 0;
      PartitionedOptimizer optimizer(world(), options);
      start(optimizer);
      const int p = optimizer.layout().find("h.0.bias");
      const int unit = optimizer.layout().parameter(p).unit;
      for (int m = 0; m < 2; ++m) {
        if (m == writer) {
          optimizer.attach_gradients(unit);
          auto* gradient = static_cast<float*>(optimizer.gradient_data(p));
          for (int i = 0; i < 67; ++i)
            gradient[i] = (optimizer.gradients_accumulate() ? gradient[i] : 0) + 1;
          optimizer.gradients_ready(unit, {false, true, false, false});
        }
        optimizer.end_micro_batch();
      }
      EXPECT_DOUBLE_EQ(optimizer.step().grad_norm, std::sqrt(67.0) * world().size());
    }
  }
}

TEST(FrozenParameters, IgnoreTheirGradients) {
  for (const int stage : {0, 3}) {
    PartitionedOptimizer optimizer(world(), usual_options(stage, DType::fp32));
    start(optimizer);
    const Outcome before = testing::outcome(optimizer);
    backward_with(optimizer, "h.0.frozen", 3, 5);
    EXPECT_EQ(optimizer.step().grad_norm, 0);
    const auto index = static_cast<std::size_t>(optimizer.layout().find("h.0.frozen"));
    EXPECT_EQ(testing::outcome(optimizer).master[index], before.master[index]);
  }
}

TEST(Discarding, ForgetsMicroBatches) {
  for (const int stage : {0, 1, 2, 3}) {
    Options options = usual_options(stage, DType::fp32);
    options.accumulation_steps = 3;
    const Outcome expected = testing::train(world(), options, 1);
    PartitionedOptimizer optimizer(world(), options);
    start(optimizer);
    testing::micro_batch(optimizer, 2);
    const auto last = static_cast<int>(optimizer.layout().units().size()) - 1;
    optimizer.attach_gradients(last);
    optimizer.gradients_ready(last, {false, false});
    optimizer.discard_gradients();
    testing::one_step(optimizer);
    EXPECT_EQ(testing::outcome(optimizer).master, expected.master);
  }
}

TEST(Declaration, HasToAgreeOverTheRanks) {
  if (world().size() == 1) GTEST_SKIP() << "needs two ranks";
  PartitionedOptimizer optimizer(world(), usual_options(1, DType::fp32));
  optimizer.add("w", {world().rank() == 1 ? 4 : 3});
  try {
    optimizer.commit();
    FAIL() << "commit() accepted different shapes";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::invalid_argument);
    EXPECT_NE(std::string(error.what()).find("rank 1"), std::string::npos) << error.what();
  }
}

TEST(Declaration, IncludesTheOptions) {
  if (world().size() == 1) GTEST_SKIP() << "needs two ranks";
  Options options = usual_options(1, DType::fp32);
  options.overlap = world().rank() == 0;
  PartitionedOptimizer optimizer(world(), options);
  optimizer.add("w", {3});
  EXPECT_THROW(optimizer.commit(), Error);
}

TEST(OptionsCheck, RefusesImpossibleValues) {
  const auto refuses = [](auto change) {
    Options options = usual_options(1, DType::fp32);
    change(options);
    EXPECT_THROW(PartitionedOptimizer(world(), options), Error);
  };
  refuses([](Options& o) { o.stage = 4; });
  refuses([](Options& o) { o.dtype = DType::fp64; });
  refuses([](Options& o) { o.accumulation_dtype = DType::bf16; });
  refuses([](Options& o) { o.communication_dtype = DType::fp64; });
  refuses([](Options& o) { o.accumulation_steps = 0; });
  refuses([](Options& o) { o.gradient_clipping = -1; });
  refuses([](Options& o) { o.reduce_bucket_size = 0; });
  refuses([](Options& o) { o.gather_bucket_size = 0; });
  refuses([](Options& o) { o.prefetch_elements = -1; });
  refuses([](Options& o) { o.reduction = Reduction::max; });
}

TEST(Phases, AreChecked) {
  PartitionedOptimizer optimizer(world(), usual_options(3, DType::fp32));
  testing::declare(optimizer, testing::awkward_model());
  EXPECT_THROW(optimizer.gather(0), Error);
  optimizer.commit();
  EXPECT_THROW(optimizer.commit(), Error);
  EXPECT_THROW(optimizer.step(), Error);
  EXPECT_THROW(optimizer.parameter_data(0), Error);
  EXPECT_THROW(optimizer.gradient_data(0), Error);
  EXPECT_THROW(optimizer.gradients_ready(0), Error);
  EXPECT_THROW(optimizer.gather(17), Error);
  EXPECT_THROW(optimizer.master(0, 0, 1 << 20, nullptr), Error);
  EXPECT_THROW(optimizer.state(0, "momentum_buffer"), Error);
  optimizer.end_micro_batch();
  EXPECT_THROW(optimizer.end_micro_batch(), Error);
  EXPECT_THROW(optimizer.attach_gradients(0), Error);
  optimizer.step();
}

TEST(EmptyModel, CanStep) {
  PartitionedOptimizer optimizer(world(), usual_options(3, DType::fp32));
  optimizer.begin_unit("nothing");
  optimizer.commit();
  optimizer.gather(0);
  optimizer.attach_gradients(0);
  optimizer.end_micro_batch();
  EXPECT_EQ(optimizer.step().grad_norm, 0);
}

}  // namespace
}  // namespace tessera::zero
