// SPDX-License-Identifier: Apache-2.0
// Losses of single numbers and their slopes against fp64 formulas.
#include "tessera/kernels/element_loss.hpp"

#include <tuple>

#include "tessera/base/error.hpp"

#include "support/kernel_testing.hpp"

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

using Parameters = std::tuple<DType, ElementLossKind>;
class ElementLossTest : public ::testing::TestWithParam<Parameters> {
 protected:
  static DType dtype() { return std::get<0>(GetParam()); }
  static ElementLossKind kind() { return std::get<1>(GetParam()); }
  static ElementLoss arguments(const TypedArray& prediction, const TypedArray& target) {
    return {.prediction = prediction.data(),
            .target = static_cast<const float*>(target.data()),
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
    const double alone = element_loss({}, args);
    args.dprediction = slopes.data();
    args.scale = 0.5f;
    EXPECT_EQ(element_loss({}, args), alone);

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
  EXPECT_EQ(element_loss({}, args), 0);
  EXPECT_EQ(slopes.values(), Doubles(5, 0));
}

TEST_P(ElementLossTest, NanShows) {
  const TypedArray bad(dtype(), {1.0, std::nan("")}), target(DType::fp32, {0.0, 0.0});
  auto slopes = testing::filled_array(dtype(), 2, 77);
  ElementLoss args = arguments(bad, target);
  args.dprediction = slopes.data();
  EXPECT_TRUE(std::isnan(element_loss({}, args)));
  EXPECT_TRUE(std::isnan(slopes.values()[1]));
}

TEST(ElementLoss, OnAGpuIsNotThereYet) {
  const Stream gpu({DeviceType::cuda, 0}, nullptr);
  EXPECT_THROW(element_loss(gpu, {.prediction = nullptr,
                                  .target = nullptr,
                                  .count = 0,
                                  .kind = ElementLossKind::squared,
                                  .dtype = DType::fp32}),
               Error);
}

}  // namespace
}  // namespace tessera::kernels
