// SPDX-License-Identifier: Apache-2.0
// What never changes a bit: stage, bucket size, overlap, prefetch; and what may only round.
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "zero/training.hpp"
#include "zero/world.hpp"

namespace tessera::zero {
namespace {

using testing::Outcome;
using testing::train;
using testing::usual_options;
using testing::world;

constexpr int kSteps = 3;

std::string text(const Options& o) {
  return std::string("stage ") + std::to_string(o.stage) + " " + to_string(o.dtype) +
         " micro-batches " + std::to_string(o.accumulation_steps) +
         (o.reduce_every_micro_batch ? " every" : "") + " bucket " +
         std::to_string(o.reduce_bucket_size) + (o.overlap ? " overlap" : "");
}

void expect_same(const Outcome& a, const Options& options, int steps = kSteps) {
  const Outcome b = train(world(), options, steps);
  EXPECT_EQ(a.norms, b.norms) << text(options);
  EXPECT_TRUE(a.master == b.master) << text(options);
  EXPECT_TRUE(a == b) << text(options);
}

class Stages : public ::testing::TestWithParam<DType> {};

TEST_P(Stages, AreEqualBitForBit) {
  const Outcome expected = train(world(), usual_options(0, GetParam()), kSteps);
  for (const int stage : {1, 2, 3}) expect_same(expected, usual_options(stage, GetParam()));
}

TEST_P(Stages, AreEqualInsideTheirAccumulationClass) {
  for (const int first : {0, 2}) {
    Options options = usual_options(first, GetParam());
    options.accumulation_steps = 3;
    const Outcome expected = train(world(), options, kSteps);
    options.stage = first + 1;
    expect_same(expected, options);
  }
}

TEST_P(Stages, AreAllEqualWhenEveryMicroBatchIsReduced) {
  Options options = usual_options(2, GetParam());
  options.accumulation_steps = 3;
  const Outcome expected = train(world(), options, kSteps);
  options.reduce_every_micro_batch = true;
  for (const int stage : {0, 1, 2, 3}) {
    options.stage = stage;
    expect_same(expected, options);
  }
}

TEST_P(Stages, AreEqualWhereSumsAreRounded) {
  for (const int first : {0, 2}) {
    Options options = usual_options(first, GetParam());
    options.accumulation_steps = 3;
    const Outcome wide = train(world(), options, kSteps);
    options.accumulation_dtype = GetParam();
    const Outcome expected = train(world(), options, kSteps);
    EXPECT_EQ(wide == expected, GetParam() == DType::fp32);
    options.stage = first + 1;
    expect_same(expected, options);
    options.reduce_every_micro_batch = true;
    if (first == 2) {
      for (const int stage : {0, 1, 2, 3}) {
        options.stage = stage;
        expect_same(expected, options);
      }
    }
  }
}

TEST_P(Stages, DoNotDependOnBucketsOverlapOrPrefetch) {
  for (const int k : {1, 2}) {
    for (const int stage : {0, 1, 2, 3}) {
      Options options = usual_options(stage, GetParam());
      options.accumulation_steps = k;
      const Outcome expected = train(world(), options, 2);
      for (const std::int64_t bucket : {1, 10000, 1 << 30}) {
        options.reduce_bucket_size = bucket;
        options.gather_bucket_size = bucket;
        options.overlap = bucket == 10000;
        options.prefetch_elements = bucket == 1 ? 0 : bucket;
        expect_same(expected, options, 2);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Stages, ::testing::Values(DType::fp32, DType::bf16, DType::fp16),
                         [](const auto& type) { return std::string(to_string(type.param)); });

TEST(Training, FollowsFp64) {
  for (const int k : {1, 3}) {
    for (const int stage : {0, 2, 3}) {
      Options options = usual_options(stage, DType::fp32);
      options.accumulation_steps = k;
      const Outcome ours = train(world(), options, 5);
      std::vector<double> norms;
      const auto exact =
          testing::train_in_fp64(world().size(), options, 5, testing::awkward_model(), &norms);
      for (std::size_t s = 0; s < norms.size(); ++s) EXPECT_NEAR(ours.norms[s], norms[s], 1e-5);
      for (std::size_t p = 0; p < exact.size(); ++p)
        for (std::size_t i = 0; i < exact[p].size(); ++i)
          ASSERT_NEAR(testing::to_float(ours.master[p][i]), exact[p][i], 2e-5)
              << text(options) << " parameter " << p << " element " << i;
    }
  }
}

class HalfTraining : public ::testing::TestWithParam<DType> {};

TEST_P(HalfTraining, StaysCloseToFp64) {
  const Options options = usual_options(3, GetParam());
  const Outcome ours = train(world(), options, 3);
  std::vector<double> norms;
  const auto exact =
      testing::train_in_fp64(world().size(), options, 3, testing::awkward_model(), &norms);
  for (std::size_t s = 0; s < norms.size(); ++s)
    EXPECT_NEAR(ours.norms[s], norms[s], 0.01 * norms[s]);
  double error = 0, count = 0;
  for (std::size_t p = 0; p < exact.size(); ++p)
    for (std::size_t i = 0; i < exact[p].size(); ++i, ++count)
      error += std::abs(testing::to_float(ours.master[p][i]) - exact[p][i]);
  // Three updates of at most lr each; the master keeps what 16 bits alone would lose.
  EXPECT_LT(error / count, 2e-4);
}

TEST_P(HalfTraining, MasterKeepsUpdatesBelowTheTypesResolution) {
  Options options = usual_options(1, GetParam());
  options.rule.lr = 1e-6;
  options.rule.weight_decay = 0;
  const Outcome before = train(world(), options, 0);
  const Outcome after = train(world(), options, 1);
  EXPECT_NE(before.master[0], after.master[0]);
  EXPECT_EQ(before.master[4], after.master[4]) << "a frozen parameter changed";
}

INSTANTIATE_TEST_SUITE_P(Types, HalfTraining, ::testing::Values(DType::bf16, DType::fp16),
                         [](const auto& type) { return std::string(to_string(type.param)); });

}  // namespace
}  // namespace tessera::zero
