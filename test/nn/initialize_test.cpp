// SPDX-License-Identifier: Apache-2.0
// Start values: any slice alone gives the same bits; their distribution is right.
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/nn/parameter.hpp"

namespace tessera::nn {
namespace {

using Kind = Initialization::Kind;

std::vector<float> start(const Parameter& parameter, const char* name, std::uint64_t seed,
                         std::int64_t begin, std::int64_t count) {
  std::vector<float> out(static_cast<std::size_t>(count));
  initialize(parameter, name, seed, begin, count, out.data());
  return out;
}

TEST(Initialize, SlicesAgreeWithTheWhole) {
  const Parameter parameter(Shape{37, 5}, {Kind::normal, 0.5f});
  const std::vector<float> whole = start(parameter, "a.weight", 3, 0, 185);
  for (const std::int64_t begin : {0, 1, 2, 17, 184}) {
    const std::vector<float> slice = start(parameter, "a.weight", 3, begin, 185 - begin);
    EXPECT_EQ(slice, std::vector<float>(whole.begin() + begin, whole.end()));
  }
}

TEST(Initialize, DependsOnNameAndSeed) {
  const Parameter parameter(Shape{8}, {Kind::normal, 1});
  const std::vector<float> base = start(parameter, "a.weight", 3, 0, 8);
  EXPECT_NE(start(parameter, "b.weight", 3, 0, 8), base);
  EXPECT_NE(start(parameter, "a.weight", 4, 0, 8), base);
}

TEST(Initialize, HasTheDeviation) {
  constexpr std::int64_t kCount = 100000;
  const Parameter parameter(Shape{kCount}, {Kind::normal, 0.02f});
  double sum = 0, squares = 0;
  for (const float value : start(parameter, "w", 1, 0, kCount)) {
    sum += static_cast<double>(value);
    squares += static_cast<double>(value) * static_cast<double>(value);
  }
  EXPECT_NEAR(sum / kCount, 0, 4 * 0.02 / std::sqrt(kCount));
  EXPECT_NEAR(std::sqrt(squares / kCount), 0.02, 2e-4);
}

TEST(Initialize, Constants) {
  EXPECT_EQ(start(Parameter(Shape{2}, {Kind::ones}), "w", 1, 0, 2), (std::vector<float>{1, 1}));
  EXPECT_EQ(start(Parameter(Shape{2}, {Kind::zeros}), "w", 1, 1, 1), (std::vector<float>{0}));
  EXPECT_THROW(start(Parameter(Shape{2}, {Kind::zeros}), "w", 1, 1, 2), Error);
}

}  // namespace
}  // namespace tessera::nn
