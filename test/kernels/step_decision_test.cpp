// SPDX-License-Identifier: Apache-2.0
// Decisions about steps, against their definition to the bit, and updates that follow them.
#include "tessera/kernels/step_decision.hpp"

#include <cmath>
#include <limits>
#include <numeric>

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

namespace on_device = testing::on_device;
using testing::Doubles;
using testing::TypedArray;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double total_of(const Doubles& blocks, const std::vector<std::int64_t>& first) {
  Doubles group_sums(first.size(), -1);
  double total = -1;
  on_device::block_total({.blocks = blocks.data(),
                          .first = first.data(),
                          .groups = std::ssize(first) - 1,
                          .group_sums = group_sums.data(),
                          .total = &total},
                         std::ssize(blocks));
  return total;
}

// Sizes around a warp and around what it reads ahead; more groups than warps; empty ones.
TEST(BlockTotal, AddsBlocksThenGroupsInOrder) {
  for (const auto& sizes :
       std::vector<std::vector<std::int64_t>>{{},
                                              {0},
                                              {1},
                                              {31, 0, 32, 33},
                                              {127, 128, 129, 1000},
                                              std::vector<std::int64_t>(70, 5)}) {
    std::vector<std::int64_t> first{0};
    for (const std::int64_t size : sizes) first.push_back(first.back() + size);
    Doubles blocks = testing::random_doubles(first.back(), 3, 1e3);
    for (double& block : blocks) block *= block;
    double expected = 0;
    for (std::size_t g = 0; g < sizes.size(); ++g)
      expected += std::accumulate(blocks.begin() + first[g], blocks.begin() + first[g + 1], 0.0);
    EXPECT_EQ(total_of(blocks, first), expected) << sizes.size();
    if (blocks.empty()) continue;
    blocks[blocks.size() / 2] = std::nan("");
    EXPECT_TRUE(std::isnan(total_of(blocks, first)));
  }
}

StepDecision decide(const Doubles& squares, double loss_scale, double largest_norm,
                    std::int32_t applied_before = 1) {
  StepDecision decision{};
  decision.applied = applied_before;
  decision.non_finite_from_last = 7;
  on_device::decide_step({.squares = squares.data(),
                          .count = std::ssize(squares),
                          .loss_scale = loss_scale,
                          .largest_norm = largest_norm,
                          .decision = &decision});
  return decision;
}

TEST(DecideStep, ClipsAndScalesAsIeeeSays) {
  for (const double loss_scale : {1.0, 1024.0, 3.0})
    for (const double largest_norm : {0.0, 1.5, 1e9}) {
      Doubles squares = testing::random_doubles(5, 9, 20);
      for (double& square : squares) square *= square;
      const double norm =
          std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0)) / loss_scale;
      const double clip = largest_norm == 0 ? 1 : std::min(1.0, largest_norm / (norm + 1e-6));
      const StepDecision decision = decide(squares, loss_scale, largest_norm);
      EXPECT_EQ(decision.norm, norm);
      EXPECT_EQ(decision.clip_coefficient, clip);
      EXPECT_EQ(decision.gradient_scale, static_cast<float>(clip / loss_scale));
      EXPECT_EQ(decision.applied, 1);
      EXPECT_EQ(decision.non_finite_piece(), -1);
    }
}

TEST(DecideStep, SkipsWhatIsNotFiniteAndRemembersTheStepBefore) {
  for (const double bad : {kInfinity, std::nan("")}) {
    const StepDecision decision = decide({1, bad, 2}, 1, 1.5);
    EXPECT_EQ(decision.applied, 0);
    EXPECT_EQ(decision.former_applied, 1);
    EXPECT_EQ(decision.clip_coefficient, 0);
    EXPECT_FALSE(std::isfinite(decision.norm));
  }
  EXPECT_EQ(decide({4}, 1, 0, 0).former_applied, 0);
}

class FindNonFinite : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, FindNonFinite, testing::kernel_types(), testing::type_name);

TEST_P(FindNonFinite, NotesTheFirstPiece) {
  const std::vector<std::int64_t> sizes{1, 1000, 3, 70001, 2};
  Doubles values = testing::random_doubles(std::accumulate(sizes.begin(), sizes.end(), 0LL), 4);
  const auto find = [&](std::int32_t applied) {
    const TypedArray gradient(GetParam(), values);
    return on_device::find_non_finite_piece(gradient, sizes, applied);
  };
  EXPECT_EQ(find(0), -1);
  values.back() = std::nan("");
  EXPECT_EQ(find(0), 4);
  values[1004 + 70000] = -kInfinity;
  EXPECT_EQ(find(0), 3);
  values[1000] = kInfinity;
  EXPECT_EQ(find(0), 1);
  EXPECT_EQ(find(1), -1);
}

/// Elements of a parameter with the states of both rules.
struct Slice {
  std::vector<float> w = floats(1), m = floats(2), v = floats(3);
  TypedArray gradient = testing::random_array(DType::fp32, kCount, 4);
  bool operator==(const Slice&) const = default;

  static constexpr std::int64_t kCount = 1003;
  static std::vector<float> floats(std::uint64_t seed) {
    std::vector<float> result;
    for (const double value : testing::random_doubles(kCount, seed))
      result.push_back(static_cast<float>(value * value));
    return result;
  }
  AdamW adamw(const AdamW::Numbers& numbers, float scale) {
    return {.parameter = w.data(),
            .exp_avg = m.data(),
            .exp_avg_sq = v.data(),
            .gradient = gradient.data(),
            .gradient_type = DType::fp32,
            .gradient_scale = scale,
            .lr = numbers.lr,
            .beta1 = numbers.beta1,
            .beta2 = 0.95,
            .epsilon = 1e-8,
            .weight_decay = 0.1,
            .correction1 = numbers.correction1,
            .correction2 = numbers.correction2,
            .count = kCount};
  }
  Sgd sgd(const Sgd::Numbers& numbers, float scale) {
    return {.parameter = w.data(),
            .momentum_buffer = m.data(),
            .gradient = gradient.data(),
            .gradient_type = DType::fp32,
            .gradient_scale = scale,
            .lr = numbers.lr,
            .momentum = 0.9,
            .dampening = 0.1,
            .weight_decay = 0.1,
            .first_step = numbers.first_step,
            .count = kCount};
  }
};

StepDecision decision_of(float scale, bool applied, bool former_applied) {
  StepDecision decision{};
  decision.gradient_scale = scale;
  decision.applied = applied ? 1 : 0;
  decision.former_applied = former_applied ? 1 : 0;
  return decision;
}

TEST(Updates, FollowADecision) {
  const AdamW::Numbers second{3e-3, 0.9, 0.19, 0.0975}, first{1e-3, 0.8, 0.2, 0.05};
  const Sgd::Numbers later{3e-3, false}, begin{1e-3, true};
  for (const bool former : {true, false}) {
    const StepDecision decision = decision_of(0.37f, true, former);
    Slice expected, found;
    on_device::adamw(expected.adamw(former ? second : first, 0.37f));
    AdamW adamw = found.adamw(second, 5);
    adamw.decision = &decision;
    adamw.after_skip = first;
    on_device::adamw(adamw);
    EXPECT_TRUE(found == expected) << former;
    on_device::sgd(expected.sgd(former ? later : begin, 0.37f));
    Sgd sgd = found.sgd(later, 5);
    sgd.decision = &decision;
    sgd.after_skip = begin;
    on_device::sgd(sgd);
    EXPECT_TRUE(found == expected) << former;
  }
}

TEST(Updates, ChangeNothingInAStepThatIsSkipped) {
  const StepDecision decision = decision_of(0, false, true);
  Slice expected, found;
  AdamW adamw = found.adamw({3e-3, 0.9, 0.19, 0.0975}, 1);
  adamw.decision = &decision;
  on_device::adamw(adamw);
  Sgd sgd = found.sgd({3e-3, true}, 1);
  sgd.decision = &decision;
  on_device::sgd(sgd);
  EXPECT_TRUE(found == expected);
}

}  // namespace
}  // namespace tessera::kernels
