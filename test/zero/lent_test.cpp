// SPDX-License-Identifier: Apache-2.0
// Arrays of a caller: the same bits as the optimizer's own storage, in every stage.
#include <cstdint>
#include <string>
#include <type_traits>
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

float to_float(float x) {
  return x;
}
float to_float(bf16 x) {
  return x.to_float();
}
float to_float(fp16 x) {
  return x.to_float();
}
void assign(float& x, float value) {
  x = value;
}
void assign(bf16& x, float value) {
  x = bf16::from_float(value);
}
void assign(fp16& x, float value) {
  x = fp16::from_float(value);
}

/// The model's arrays as a simulation code would hold them.
template <typename T>
struct Caller {
  Caller(PartitionedOptimizer& optimizer, bool units) {
    for (const testing::UnitSpec& unit : testing::awkward_model())
      for (const testing::ParameterSpec& p : unit.parameters) specs.push_back(p);
    for (const testing::ParameterSpec& p : specs) {
      weights.emplace_back(static_cast<std::size_t>(p.shape.numel()));
      gradients.emplace_back(weights.back().size());
      for (std::size_t i = 0; i < weights.back().size(); ++i)
        assign(weights.back()[i], testing::initial_value(static_cast<int>(weights.size()) - 1,
                                                         static_cast<std::int64_t>(i)));
    }
    std::size_t next = 0;
    for (const testing::UnitSpec& unit : testing::awkward_model()) {
      if (units) optimizer.begin_unit(unit.name);
      for (const testing::ParameterSpec& p : unit.parameters) {
        T* gradient = p.options.trainable ? gradients[next].data() : nullptr;
        optimizer.add(p.name, p.shape, weights[next].data(), gradient, p.options);
        ++next;
      }
    }
    optimizer.commit();
  }
  void fill_gradients(int rank, std::int64_t step) {
    for (std::size_t p = 0; p < weights.size(); ++p)
      for (std::size_t i = 0; i < weights[p].size(); ++i)
        assign(gradients[p][i],
               testing::gradient_value(to_float(weights[p][i]), rank, step, 0, static_cast<int>(p),
                                       static_cast<std::int64_t>(i)));
  }
  std::vector<testing::ParameterSpec> specs;
  std::vector<std::vector<T>> weights, gradients;
};

template <typename T>
Outcome train_lent(const Options& options, int steps, bool units = true) {
  PartitionedOptimizer optimizer(world(), options);
  Caller<T> caller(optimizer, units);
  std::vector<double> norms;
  for (int s = 0; s < steps; ++s) {
    caller.fill_gradients(world().rank(), s);
    norms.push_back(optimizer.step().grad_norm);
  }
  Outcome result = testing::outcome(optimizer);
  result.norms = norms;
  for (std::size_t p = 0; p < caller.weights.size(); ++p)
    for (std::size_t i = 0; i < caller.weights[p].size(); ++i) {
      // The caller's arrays are whole and up to date: they show the master, rounded.
      const float whole = testing::to_float(result.master[p][i]);
      EXPECT_NEAR(to_float(caller.weights[p][i]), whole, (std::is_same_v<T, float> ? 0 : 0.004));
    }
  return result;
}

TEST(LentArrays, GiveTheBitsOfOwnStorageInEveryStage) {
  const Outcome expected = testing::train(world(), usual_options(0, DType::fp32), 3);
  for (const int stage : {0, 1, 2, 3}) {
    const Outcome lent = train_lent<float>(usual_options(stage, DType::fp32), 3);
    EXPECT_EQ(lent.norms, expected.norms);
    EXPECT_TRUE(lent == expected) << "stage " << stage;
  }
}

TEST(LentArrays, InBf16AreEqualInEveryStage) {
  const Outcome expected = train_lent<bf16>(usual_options(0, DType::bf16), 3);
  for (const int stage : {1, 2, 3})
    EXPECT_TRUE(train_lent<bf16>(usual_options(stage, DType::bf16), 3) == expected) << stage;
}

TEST(LentArrays, InFp16AreEqualInEveryStage) {
  const Outcome expected = train_lent<fp16>(usual_options(0, DType::fp16), 3);
  for (const int stage : {1, 2, 3})
    EXPECT_TRUE(train_lent<fp16>(usual_options(stage, DType::fp16), 3) == expected) << stage;
}

TEST(LentArrays, MaySendAnotherType) {
  for (const DType sent : {DType::fp32, DType::fp16}) {
    Options options = usual_options(0, DType::bf16);
    options.communication_dtype = sent;
    const Outcome expected = train_lent<bf16>(options, 3);
    for (const int stage : {1, 2, 3}) {
      options.stage = stage;
      EXPECT_TRUE(train_lent<bf16>(options, 3) == expected) << stage;
    }
    options.reduce_bucket_size = 9000;
    EXPECT_TRUE(train_lent<bf16>(options, 3) == expected);
  }
  // Arrays in 16 bits begin with rounded masters; those in fp32 are the optimizer's own to the bit.
  Options options = usual_options(1, DType::fp32);
  options.communication_dtype = DType::bf16;
  const Outcome own = testing::train(world(), options, 3);
  const Outcome lent = train_lent<float>(options, 3);
  EXPECT_EQ(lent.norms, own.norms);
  EXPECT_TRUE(lent == own);
}

TEST(LentArrays, ShowASumBeyondTheSentTypeAsNotFinite) {
  Options options = usual_options(2, DType::fp32);
  options.communication_dtype = DType::fp16;
  PartitionedOptimizer optimizer(world(), options);
  std::vector<float> w(100, 1.0f), g(100, 0.0f);
  optimizer.add("w", {100}, w.data(), g.data());
  optimizer.commit();
  g[99] = 1e5f;
  const StepResult result = optimizer.step();
  EXPECT_FALSE(result.applied);
  EXPECT_EQ(result.non_finite_parameter, "w");
  EXPECT_EQ(w, std::vector<float>(100, 1.0f));
}

TEST(LentArrays, InFp16KeepWhatRoundingTakesAway) {
  Options options = usual_options(1, DType::fp16);
  options.rule.lr = 1e-5;  // a 50th of a unit in the last place of 0.5
  options.rule.weight_decay = 0;
  options.gradient_clipping = 0;
  PartitionedOptimizer optimizer(world(), options);
  std::vector<fp16> w(100, fp16::from_float(0.5f)), g(100);
  optimizer.add("w", {100}, w.data(), g.data());
  optimizer.commit();
  for (int step = 0; step < 100; ++step) {
    g.assign(100, fp16::from_float(-1.0f));
    optimizer.step();
  }
  for (const fp16 weight : w) EXPECT_NEAR(weight.to_float(), 0.5 + 100 * 1e-5, 0x1p-12);
}

TEST(LentArrays, DoNotDependOnBucketsOrOverlap) {
  for (const int stage : {0, 1}) {
    Options options = usual_options(stage, DType::fp32);
    const Outcome expected = train_lent<float>(options, 2, false);
    for (const std::int64_t bucket : {1, 9000}) {
      options.reduce_bucket_size = options.gather_bucket_size = bucket;
      options.overlap = bucket == 1;
      EXPECT_TRUE(train_lent<float>(options, 2, false) == expected) << bucket;
    }
  }
}

TEST(LentArrays, TakeTheValuesOfRankZero) {
  for (const int stage : {0, 2}) {
    PartitionedOptimizer optimizer(world(), usual_options(stage, DType::fp32));
    std::vector<float> w(100, static_cast<float>(world().rank() + 1)), g(100, 0.0f);
    optimizer.add("w", {10, 10}, w.data(), g.data(), {.weight_decay = 0.0});
    optimizer.commit();
    EXPECT_EQ(w, std::vector<float>(100, 1.0f));
    optimizer.step();
    EXPECT_EQ(w, std::vector<float>(100, 1.0f));
  }
}

TEST(LentArrays, MeanDividesOnceByTheRankCount) {
  Options options = usual_options(0, DType::fp32);
  options.reduction = Reduction::mean;
  PartitionedOptimizer optimizer(world(), options);
  std::vector<float> w(4, 0.0f), g(4, static_cast<float>(2 * world().rank()));
  optimizer.add("w", {4}, w.data(), g.data());
  optimizer.commit();
  EXPECT_DOUBLE_EQ(optimizer.step().grad_norm, 2.0 * (world().size() - 1));
}

TEST(LentArrays, RefuseWhatCannotBe) {
  std::vector<float> w(6), g(6);
  PartitionedOptimizer optimizer(world(), usual_options(1, DType::fp32));
  EXPECT_THROW(optimizer.add("w", {2, 3}, w.data(), static_cast<float*>(nullptr)), Error);
  EXPECT_THROW(optimizer.add("w", {2, 3}, reinterpret_cast<bf16*>(w.data()),
                             reinterpret_cast<bf16*>(g.data())),
               Error);
  optimizer.add("w", {2, 3}, w.data(), g.data());
  EXPECT_THROW(optimizer.add("w", {2, 3}, w.data(), g.data()), Error);
  EXPECT_THROW(optimizer.add("own", {2, 3}), Error);
  EXPECT_THROW(optimizer.step(), Error);
  optimizer.commit();
  EXPECT_THROW(optimizer.add("late", {2, 3}, w.data(), g.data()), Error);
  EXPECT_THROW(optimizer.gather(0), Error);
  EXPECT_THROW(optimizer.step({.loss_scale = 0}), Error);
  Options options = usual_options(1, DType::fp32);
  options.accumulation_steps = 2;
  PartitionedOptimizer accumulating(world(), options);
  EXPECT_THROW(accumulating.add("w", {2, 3}, w.data(), g.data()), Error);
}

}  // namespace
}  // namespace tessera::zero
