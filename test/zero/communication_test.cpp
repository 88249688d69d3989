// SPDX-License-Identifier: Apache-2.0
// Gradients that are sent in another type than the run's.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/device/cuda.hpp"

#include "zero/training.hpp"
#include "zero/world.hpp"

namespace tessera::zero {
namespace {

using testing::Outcome;
using testing::train;
using testing::usual_options;
using testing::world;

constexpr DType kTypes[] = {DType::fp32, DType::bf16, DType::fp16};

struct Case {
  DType run, sent;
};

Options options_of(int stage, const Case& c, int micro_batches = 1) {
  Options options = usual_options(stage, c.run);
  options.communication_dtype = c.sent;
  options.accumulation_steps = micro_batches;
  options.reduce_bucket_size = 20000;
  return options;
}

class Sent : public ::testing::TestWithParam<Case> {
 protected:
  void expect_same(const Outcome& expected, const Options& options) {
    const Outcome ours = train(world(), options, 2);
    EXPECT_EQ(ours.norms, expected.norms) << "stage " << options.stage;
    EXPECT_TRUE(ours == expected) << "stage " << options.stage;
  }
};

TEST_P(Sent, StagesAreEqualBitForBit) {
  const Outcome expected = train(world(), options_of(0, GetParam()), 2);
  for (const int stage : {1, 2, 3}) expect_same(expected, options_of(stage, GetParam()));
}

TEST_P(Sent, StagesAreEqualInsideTheirAccumulationClass) {
  for (const DType sums : {DType::fp32, GetParam().run}) {
    for (const int first : {0, 2}) {
      Options options = options_of(first, GetParam(), 3);
      options.accumulation_dtype = sums;
      const Outcome expected = train(world(), options, 2);
      options.stage = first + 1;
      expect_same(expected, options);
      options.reduce_every_micro_batch = true;
      for (const int stage : {0, 1, 3}) {
        options.stage = stage;
        if (first == 2) expect_same(expected, options);
      }
    }
  }
}

TEST_P(Sent, BucketsAndOverlapChangeNothing) {
  for (const int stage : {0, 1, 3}) {
    Options options = options_of(stage, GetParam());
    const Outcome expected = train(world(), options, 2);
    for (const std::int64_t bucket : {1, 1 << 30}) {
      options.reduce_bucket_size = bucket;
      options.overlap = bucket == 1;
      expect_same(expected, options);
    }
  }
}

std::vector<Case> pairs() {
  std::vector<Case> pairs;
  for (const DType run : kTypes)
    for (const DType sent : kTypes)
      if (run != sent) pairs.push_back({run, sent});
  return pairs;
}

INSTANTIATE_TEST_SUITE_P(Pairs, Sent, ::testing::ValuesIn(pairs()), [](const auto& pair) {
  return std::string(to_string(pair.param.run)) + "_run_" + to_string(pair.param.sent) + "_sent";
});

constexpr std::int64_t kCount = 1009;

float rounded(float value, DType type) {
  std::uint32_t bits = 0;
  convert(&value, DType::fp32, &bits, type, 1);
  float result = 0;
  convert(&bits, type, &result, DType::fp32, 1);
  return result;
}

/// One parameter of zeros, from which plain SGD with a rate of 1 subtracts the gradient: its master
/// is then the negative of what the update took.
class Probe {
 public:
  explicit Probe(Options options) : optimizer_(world(), plain(std::move(options))) {
    optimizer_.begin_unit("u");
    optimizer_.add("w", {kCount});
    optimizer_.commit();
  }
  template <typename Value>  // float(rank, micro-batch, index)
  StepResult step(const Value& value) {
    for (int m = 0; m < optimizer_.options().accumulation_steps; ++m) {
      optimizer_.gather(0);
      optimizer_.attach_gradients(0);
      write(value, m);
      optimizer_.gradients_ready(0);
      optimizer_.end_micro_batch();
    }
    return optimizer_.step();
  }
  /// Of the elements from owned().begin on.
  std::vector<float> gradient() const {
    std::vector<float> values(static_cast<std::size_t>(owned().count));
    optimizer_.master(0, owned().begin, owned().count, values.data());
    for (float& value : values) value = -value;
    return values;
  }
  Range owned() const { return optimizer_.owned(0); }

 private:
  static Options plain(Options options) {
    options.rule = {};
    options.rule.type = "SGD";
    options.rule.lr = 1;
    options.gradient_clipping = 0;
    return options;
  }
  template <typename Value>
  void write(const Value& value, int micro_batch) {
    const DType type = optimizer_.gradient_dtype();
    std::vector<float> values;
    for (std::int64_t i = 0; i < kCount; ++i)
      values.push_back(value(world().rank(), micro_batch, i));
    std::vector<std::byte> typed(kCount * size_of(type));
    convert(values.data(), DType::fp32, typed.data(), type, kCount);
    current_stream(optimizer_.device())
        .copy(optimizer_.gradient_data(0), typed.data(), typed.size());
  }

  PartitionedOptimizer optimizer_;
};

float sample(int rank, int micro_batch, std::int64_t index) {
  return testing::gradient_value(0, rank, 0, micro_batch, 3, index);
}

/// What the rules say: gradients of the run's type, summed over ranks in fp32, rounded to what is
/// sent; then held, or added to what is held.
float reference(const Options& options, std::int64_t index) {
  const DType sent = options.communication_dtype.value_or(options.dtype);
  const bool single = options.accumulation_steps == 1;
  const DType held = single ? options.dtype : options.accumulation_dtype;
  float sum = 0;
  for (int m = 0; m < options.accumulation_steps; ++m) {
    float reduced = 0;
    for (int rank = 0; rank < world().size(); ++rank)
      reduced += rounded(rounded(sample(rank, m, index), options.dtype), sent);
    sum = rounded(sum + rounded(reduced, sent), held);
  }
  return sum;
}

TEST(WireType, IsWhatReducedGradientsAreRoundedTo) {
  for (const DType sent : kTypes) {
    for (const int stage : {0, 1, 2, 3}) {
      for (const int micro_batches : {1, 2}) {
        Options options = options_of(stage, {DType::bf16, sent}, micro_batches);
        options.reduce_every_micro_batch = true;
        Probe probe(options);
        ASSERT_TRUE(probe.step(sample).applied);
        const std::vector<float> ours = probe.gradient();
        for (std::size_t i = 0; i < ours.size(); ++i)
          ASSERT_EQ(ours[i], reference(options, probe.owned().begin + static_cast<std::int64_t>(i)))
              << to_string(sent) << " stage " << stage << " micro-batches " << micro_batches;
      }
    }
  }
}

TEST(WireType, Fp32KeepsWhatBf16Loses) {
  if (world().size() == 1) GTEST_SKIP() << "a sum over one rank needs no more bits";
  Options options = options_of(2, {DType::bf16, DType::fp32}, 2);
  Probe wide(options);
  options.communication_dtype = DType::bf16;
  Probe narrow(options);
  wide.step(sample);
  narrow.step(sample);
  const std::vector<float> a = wide.gradient(), b = narrow.gradient();
  double differing = 0;
  for (std::size_t i = 0; i < a.size(); ++i) differing += a[i] != b[i] ? 1 : 0;
  EXPECT_GT(differing, 0.5 * static_cast<double>(a.size()));
}

TEST(WireType, OverflowIsAGradientThatIsNotFinite) {
  for (const DType run : {DType::fp32, DType::bf16}) {
    for (const int stage : {0, 1, 2, 3}) {
      Probe probe(options_of(stage, {run, DType::fp16}));
      const auto spike = [](float value) {
        return [value](int, int, std::int64_t i) { return i == 1000 ? value : 0.0f; };
      };
      const StepResult overflow = probe.step(spike(1e5f));
      EXPECT_FALSE(overflow.applied);
      EXPECT_FALSE(std::isfinite(overflow.grad_norm));
      EXPECT_EQ(overflow.non_finite_parameter, "w");
      // Finite on every rank, and in the sum of two only beyond fp16.
      EXPECT_EQ(probe.step(spike(61440)).applied, world().size() == 1);
      EXPECT_TRUE(probe.step(spike(1024)).applied);
    }
  }
}

}  // namespace
}  // namespace tessera::zero
