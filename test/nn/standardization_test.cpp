// SPDX-License-Identifier: Apache-2.0
// Means and deviations of features, whole and in parts.
#include "tessera/nn/standardization.hpp"

#include <cmath>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/base/random.hpp"

namespace tessera::nn {
namespace {

constexpr std::int64_t kFeatures = 3;

/// A large mean with a small deviation, an ordinary feature, and a constant.
Tensor random_rows(std::int64_t rows, std::uint64_t stream) {
  Tensor tensor(Shape{rows, kFeatures}, DType::fp32);
  const RandomStream random(5, stream);
  for (std::int64_t r = 0; r < rows; ++r) {
    float* row = tensor.as<float>() + r * kFeatures;
    row[0] = 1e5f + random.normal(static_cast<std::uint64_t>(2 * r));
    row[1] = 3 * random.normal(static_cast<std::uint64_t>(2 * r + 1));
    row[2] = 7;
  }
  return tensor;
}

TEST(Standardization, IsThatOfTheTextbook) {
  const Tensor rows = random_rows(1000, 1);
  Standardization statistics(kFeatures);
  statistics.observe(rows);
  EXPECT_EQ(statistics.count(), 1000);
  for (std::int64_t i = 0; i < 2; ++i) {
    double mean = 0, squares = 0;
    for (std::int64_t r = 0; r < 1000; ++r)
      mean += static_cast<double>(rows.as<float>()[r * kFeatures + i]) / 1000;
    for (std::int64_t r = 0; r < 1000; ++r)
      squares += std::pow(static_cast<double>(rows.as<float>()[r * kFeatures + i]) - mean, 2);
    EXPECT_NEAR(statistics.mean(i), mean, 1e-9 * std::abs(mean));
    EXPECT_NEAR(statistics.deviation(i), std::sqrt(squares / 1000), 1e-9);
  }
  EXPECT_EQ(statistics.mean(2), 7);
  EXPECT_EQ(statistics.deviation(2), 1);
}

TEST(Standardization, OfPartsIsThatOfTheWhole) {
  const Tensor rows = random_rows(1000, 2);
  Standardization whole(kFeatures), left(kFeatures), right(kFeatures), none(kFeatures);
  whole.observe(rows);
  left.observe(rows.rows(0, 10));
  right.observe(rows.rows(10, 400));
  right.observe(rows.rows(400, 1000));
  left.merge(none);
  none.merge(right);
  left.merge(none);
  EXPECT_EQ(left.count(), 1000);
  for (std::int64_t i = 0; i < kFeatures; ++i) {
    EXPECT_NEAR(left.mean(i), whole.mean(i), 1e-12 * std::abs(whole.mean(i)));
    EXPECT_NEAR(left.deviation(i), whole.deviation(i), 1e-9);
  }
}

TEST(Standardization, ScalesAndScalesBack) {
  const Tensor rows = random_rows(50, 3);
  Standardization statistics(kFeatures);
  EXPECT_EQ(statistics.apply(rows).as<float>()[0], rows.as<float>()[0]);  // nothing is known yet
  statistics.observe(rows);
  const Tensor scaled = statistics.apply(rows), back = statistics.invert(scaled);
  Standardization after(kFeatures);
  after.observe(scaled);
  EXPECT_NEAR(after.mean(0), 0, 1e-6);
  EXPECT_NEAR(after.deviation(0), 1, 1e-6);
  EXPECT_EQ(after.mean(2), 0);
  for (std::int64_t i = 0; i < rows.numel(); ++i)
    EXPECT_NEAR(back.as<float>()[i], rows.as<float>()[i],
                1e-6 * (1 + std::abs(rows.as<float>()[i])));
}

TEST(Standardization, KeepsEveryBitInJson) {
  Standardization statistics(kFeatures);
  statistics.observe(random_rows(9, 4));
  const std::string text = statistics.to_json();
  EXPECT_EQ(Standardization::parse(text, kFeatures).to_json(), text);
  EXPECT_THROW(Standardization::parse(text, kFeatures + 1), Error);
  EXPECT_THROW(Standardization::parse("{}", kFeatures), Error);
}

}  // namespace
}  // namespace tessera::nn
