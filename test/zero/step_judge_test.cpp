// SPDX-License-Identifier: Apache-2.0
// Steps that are started before the one before them is finished: the results of step(), to the bit.
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

#include "zero/training.hpp"
#include "zero/world.hpp"

namespace tessera::zero {
namespace {

using testing::Outcome;
using testing::usual_options;
using testing::world;

constexpr int kSteps = 6;

/// A schedule: what update k uses.
StepInput input_of(std::int64_t k) {
  return {.lr = 1e-3 * static_cast<double>(1 + k), .momentum = 0.9 - 0.01 * static_cast<double>(k)};
}

/// Trains with gradients that are NaN in some steps, one step ahead of what is known or not.
class Training {
 public:
  Training(const Options& options, std::set<int> spoiled)
      : optimizer_(world(), options), spoiled_(std::move(spoiled)) {
    testing::declare(optimizer_, testing::awkward_model());
    optimizer_.commit();
    testing::load_initial_values(optimizer_);
  }

  void run(bool ahead) {
    for (int step = 0; step < kSteps; ++step) {
      for (int m = 0; m < optimizer_.options().accumulation_steps; ++m)
        testing::micro_batch(optimizer_, m,
                             {.step = step, .spoiled = spoiled_.contains(step) && m == 0});
      optimizer_.start_step(input_of(optimizer_.steps() + under_way_),
                            input_of(optimizer_.steps()));
      ++under_way_;
      finish(ahead ? 1 : 0);
    }
    finish(0);
  }
  Outcome outcome() const { return testing::outcome(optimizer_); }
  const std::vector<StepResult>& results() const { return results_; }
  std::int64_t updates() const { return optimizer_.steps(); }

 private:
  void finish(int most) {
    for (; under_way_ > most; --under_way_) results_.push_back(optimizer_.finish_step());
  }

  PartitionedOptimizer optimizer_;
  std::set<int> spoiled_;
  std::vector<StepResult> results_;
  int under_way_ = 0;
};

void expect_same(const StepResult& a, const StepResult& b) {
  EXPECT_EQ(a.applied, b.applied);
  if (a.applied) {
    EXPECT_EQ(a.grad_norm, b.grad_norm);
  } else {
    EXPECT_FALSE(std::isfinite(b.grad_norm));
    EXPECT_NE(b.skipped_reason.find("h.0.scale"), std::string::npos) << b.skipped_reason;
  }
  EXPECT_EQ(a.clip_coefficient, b.clip_coefficient);
  EXPECT_EQ(a.skipped_reason, b.skipped_reason);
  EXPECT_EQ(a.non_finite_owner, b.non_finite_owner);
}

/// The same whether the results are asked for at once or a step later.
void expect_same_ahead(const Options& options, const std::set<int>& spoiled) {
  Training usual(options, spoiled), ahead(options, spoiled);
  usual.run(false);
  ahead.run(true);
  EXPECT_EQ(usual.updates(), kSteps - std::ssize(spoiled));
  EXPECT_EQ(ahead.updates(), usual.updates());
  ASSERT_EQ(ahead.results().size(), usual.results().size());
  for (std::size_t i = 0; i < usual.results().size(); ++i) {
    EXPECT_EQ(usual.results()[i].applied, !spoiled.contains(static_cast<int>(i)));
    expect_same(usual.results()[i], ahead.results()[i]);
  }
  EXPECT_TRUE(ahead.outcome() == usual.outcome()) << "stage " << options.stage;
}

// The first step, two in a row, and the last one.
const std::set<int> kSpoiled = {0, 2, 3, 5};

TEST(StepsAhead, ChangeNoBit) {
  for (const int stage : {0, 1, 2, 3})
    expect_same_ahead(usual_options(stage, stage % 2 == 0 ? DType::fp32 : DType::bf16), kSpoiled);
  expect_same_ahead(usual_options(2, DType::fp16), {});
}

TEST(StepsAhead, ChangeNoBitWithSeveralMicroBatches) {
  for (const int stage : {1, 3}) {
    Options options = usual_options(stage, DType::bf16);
    options.accumulation_steps = 2;
    expect_same_ahead(options, kSpoiled);
  }
}

// SGD's first update, which begins the momentum, is the first that is applied. Gradients, and so
// their norms, follow from the weights.
TEST(StepsAhead, ChangeNoBitOfSgd) {
  Options options = usual_options(2, DType::fp32);
  options.rule = {.type = "SGD", .lr = 1e-3, .momentum = 0.9};
  Training usual(options, kSpoiled), ahead(options, kSpoiled);
  usual.run(false);
  ahead.run(true);
  for (std::size_t i = 0; i < usual.results().size(); ++i)
    expect_same(usual.results()[i], ahead.results()[i]);
}

TEST(StepsAhead, AreOneAtMost) {
  PartitionedOptimizer optimizer(world(), usual_options(1, DType::fp32));
  testing::declare(optimizer, testing::awkward_model());
  optimizer.commit();
  testing::load_initial_values(optimizer);
  EXPECT_THROW(optimizer.finish_step(), Error);
  for (int step = 0; step < 2; ++step) {
    testing::micro_batch(optimizer, 0);
    optimizer.start_step();
  }
  EXPECT_THROW(optimizer.set_steps(0), Error);
  testing::micro_batch(optimizer, 0);
  EXPECT_THROW(optimizer.start_step(), Error);
  EXPECT_THROW(optimizer.step(), Error);
  EXPECT_TRUE(optimizer.finish_step().applied);
  EXPECT_TRUE(optimizer.finish_step().applied);
  EXPECT_TRUE(optimizer.step().applied);
  EXPECT_EQ(optimizer.steps(), 3);
}

// What nobody finishes does not write into memory that is given back.
TEST(StepsAhead, MayBeDropped) {
  PartitionedOptimizer optimizer(world(), usual_options(2, DType::fp32));
  testing::declare(optimizer, testing::awkward_model());
  optimizer.commit();
  testing::load_initial_values(optimizer);
  testing::micro_batch(optimizer, 0);
  optimizer.start_step();
}

}  // namespace
}  // namespace tessera::zero
