// SPDX-License-Identifier: Apache-2.0
// Losses of single numbers and their slopes against fp64 formulas.
#include "tessera/kernels/element_loss.hpp"

#include <numeric>
#include <tuple>
#include <vector>

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

using testing::Doubles;
using testing::TypedArray;

constexpr double kDelta = 0.75;

double loss_of(ElementLossKind kind, double d) {
  const double size = std::abs(d);
  switch (kind) {
    case ElementLossKind::squared:
      return d * d;
    case ElementLossKind::absolute:
      return size;
    default:
      return size <= kDelta ? d * d / 2 : kDelta * (size - kDelta / 2);
  }
}

/// The sum of all blocks.
double total_loss(ElementLoss args) {
  std::vector<double> sums(static_cast<std::size_t>(ceil_divide(args.count, kLossBlock)));
  args.sums = sums.data();
  testing::on_device::element_loss(args);
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

using Parameters = std::tuple<DType, ElementLossKind>;
class ElementLossTest : public ::testing::TestWithParam<Parameters> {
 protected:
  static DType dtype() { return std::get<0>(GetParam()); }
  static ElementLossKind kind() { return std::get<1>(GetParam()); }
  static ElementLoss arguments(const TypedArray& prediction, const TypedArray& target) {
    return {.prediction = prediction.data(),
            .target = static_cast<const float*>(target.data()),
            .sums = nullptr,
            .count = static_cast<std::int64_t>(prediction.size()),
            .kind = kind(),
            .delta = kDelta,
            .dtype = dtype()};
  }
};
INSTANTIATE_TEST_SUITE_P(
    All, ElementLossTest,
    ::testing::Combine(::testing::Values(DType::fp32, DType::bf16, DType::fp16),
                       ::testing::Values(ElementLossKind::squared, ElementLossKind::absolute,
                                         ElementLossKind::huber)));

TEST_P(ElementLossTest, SumAndSlopesAreThoseOfTheFormulas) {
  for (const std::int64_t count : {0, 1, 100, 16384, 50001}) {
    const auto prediction = testing::random_array(dtype(), count, 1);
    const auto target = testing::random_array(DType::fp32, count, 2);
    auto slopes = testing::filled_array(dtype(), count, 77);
    ElementLoss args = arguments(prediction, target);
    const double alone = total_loss(args);
    args.dprediction = slopes.data();
    args.scale = 0.5f;
    EXPECT_EQ(total_loss(args), alone);

    const Doubles p = prediction.values(), t = target.values(), slope = slopes.values();
    double expected = 0;
    const double unit = dtype() == DType::fp32 ? 1e-6 : 0x1p-7;
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double d = p[i] - t[i], h = 1e-6;
      expected += loss_of(kind(), d);
      if (std::abs(d) < h || std::abs(std::abs(d) - kDelta) < h) continue;
      const double exact = (loss_of(kind(), d + h) - loss_of(kind(), d - h)) / (2 * h);
      EXPECT_NEAR(slope[i], 0.5 * exact, unit * (1 + std::abs(exact))) << d;
    }
    EXPECT_NEAR(alone, expected, 1e-6 * (1 + expected));
  }
}

TEST_P(ElementLossTest, WhatIsEqualCostsNothing) {
  const TypedArray same(dtype(), Doubles(5, 0.25)), target(DType::fp32, Doubles(5, 0.25));
  auto slopes = testing::filled_array(dtype(), 5, 77);
  ElementLoss args = arguments(same, target);
  args.dprediction = slopes.data();
  EXPECT_EQ(total_loss(args), 0);
  EXPECT_EQ(slopes.values(), Doubles(5, 0));
}

TEST_P(ElementLossTest, NanShows) {
  const TypedArray bad(dtype(), {1.0, std::nan("")}), target(DType::fp32, {0.0, 0.0});
  auto slopes = testing::filled_array(dtype(), 2, 77);
  ElementLoss args = arguments(bad, target);
  args.dprediction = slopes.data();
  EXPECT_TRUE(std::isnan(total_loss(args)));
  EXPECT_TRUE(std::isnan(slopes.values()[1]));
}

// Lanes of a block, then halves of them: written out for a block and a bit.
TEST_P(ElementLossTest, SumsAreOfTheDefinition) {
  constexpr std::int64_t kCount = kLossBlock + 37;
  const auto prediction = testing::random_array(dtype(), kCount, 3);
  auto target = testing::random_array(DType::fp32, kCount, 4);
  std::vector<double> sums(2);
  ElementLoss args = arguments(prediction, target);
  args.sums = sums.data();
  testing::on_device::element_loss(args);
  for (std::size_t block = 0; block < 2; ++block) {
    std::vector<double> lanes(32);
    for (std::size_t i = block * kLossBlock;
         i < std::min<std::size_t>(kCount, (block + 1) * kLossBlock); ++i) {
      const float d = static_cast<float>(prediction.values()[i]) - target.as<float>()[i];
      lanes[i % 32] += loss_of(kind(), static_cast<double>(d));
    }
    for (std::size_t half = 16; half > 0; half /= 2)
      for (std::size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    EXPECT_EQ(sums[block], lanes[0]);
  }
}

}  // namespace
}  // namespace tessera::kernels
