// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/inspect/axis.hpp"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace tessera::app {
namespace {

std::vector<std::string> labels(const Axis& axis, int count = 5, bool whole = false) {
  std::vector<std::string> found;
  for (const Tick& tick : axis.ticks(count, whole)) found.push_back(tick.label);
  return found;
}
using Labels = std::vector<std::string>;

TEST(Axis, TicksAreRoundNumbersInOneUnit) {
  EXPECT_EQ(labels({0, 6}), (Labels{"0", "2", "4", "6"}));
  EXPECT_EQ(labels({1.31, 1.42}), (Labels{"1.35", "1.4"}));
  EXPECT_EQ(labels({0, 30000}), (Labels{"0", "10k", "20k", "30k"}));
  EXPECT_EQ(labels({0, 1.5e6}), (Labels{"0", "0.5M", "1M", "1.5M"}));
  EXPECT_EQ(labels({0, 1.5e-3}), (Labels{"0", "0.5e-3", "1e-3", "1.5e-3"}));
  EXPECT_EQ(labels({-1, 1}), (Labels{"-1", "-0.5", "0", "0.5", "1"}));
  EXPECT_EQ(labels({0, 3}, 7, true), (Labels{"0", "1", "2", "3"}));
  EXPECT_EQ(labels({0, 0.004}), (Labels{"0", "1e-3", "2e-3", "3e-3", "4e-3"}));
}

TEST(Axis, LogarithmicTicksAreDecadesOrParts) {
  const auto log = Axis::Scale::logarithmic;
  EXPECT_EQ(labels({1, 20, log}), (Labels{"1", "2", "5", "10", "20"}));
  EXPECT_EQ(labels({0.05, 500, log}), (Labels{"0.1", "1", "10", "100"}));
  EXPECT_EQ(labels({1e-3, 1e9, log}), (Labels{"1e-3", "0.1", "10", "1000", "100k", "10M", "1G"}));
  EXPECT_DOUBLE_EQ(Axis(1, 100, log).position(10), 0.5);
}

TEST(Axis, RoundingMovesTheEndsOutwards) {
  const Axis linear = Axis(1.31, 1.42).rounded();
  EXPECT_DOUBLE_EQ(linear.low(), 1.3);
  EXPECT_DOUBLE_EQ(linear.high(), 1.45);
  const Axis log = Axis(0.7, 310, Axis::Scale::logarithmic).rounded();
  EXPECT_DOUBLE_EQ(log.low(), 0.5);
  EXPECT_DOUBLE_EQ(log.high(), 500);
}

TEST(Axis, AnEmptyRangeGetsRoom) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  for (const auto& [low, high] : {std::pair{0.0, 0.0},
                                  {5.5, 5.5},
                                  {-3.0, -3.0},
                                  {1e300, 1e300},
                                  {-1e308, 1e308},
                                  {0.0, 5e-324},
                                  {1e9, 1e9 + 1e-6},
                                  {infinity, -infinity},
                                  {std::nan(""), 1.0}}) {
    const Axis axis = Axis(low, high).rounded();
    EXPECT_LT(axis.low(), axis.high());
    EXPECT_LE(axis.ticks(5).size(), 12u) << low;
    EXPECT_GE(axis.ticks(5).size(), 1u) << low;
  }
  EXPECT_EQ(labels({1, 1}, 7, true), Labels{"1"});
  const Axis log(2, 2, Axis::Scale::logarithmic);
  EXPECT_DOUBLE_EQ(log.position(2), 0.5);
  EXPECT_LE(Axis(5e-324, 1e308, Axis::Scale::logarithmic).rounded().ticks(5).size(), 8u);
}

}  // namespace
}  // namespace tessera::app
