// SPDX-License-Identifier: Apache-2.0
// Exact fractions: reduced, ordered, and refusing what does not fit.
#include "tessera/base/rational.hpp"

#include <limits>

#include <gtest/gtest.h>

#include "support/expect_error.hpp"

namespace tessera {
namespace {

constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();

TEST(Rational, IsReducedWithAPositiveDenominator) {
  EXPECT_EQ(Rational(6, -4), Rational(-3, 2));
  EXPECT_EQ(Rational(6, -4).numerator(), -3);
  EXPECT_EQ(Rational(6, -4).denominator(), 2);
  EXPECT_EQ(Rational(0, 7), Rational(0));
  EXPECT_EQ(Rational(57, 2).to_string(), "57/2");
  EXPECT_EQ(Rational(-8, 4).to_string(), "-2");
  EXPECT_EQ(Rational(1, 4).value(), 0.25);
}

TEST(Rational, Arithmetic) {
  EXPECT_EQ(Rational(1, 6) + Rational(1, 10), Rational(4, 15));
  EXPECT_EQ(Rational(1, 2) - Rational(1, 3), Rational(1, 6));
  EXPECT_EQ(Rational(2, 3) * Rational(-9, 4), Rational(-3, 2));
  EXPECT_EQ(Rational(2, 3) / Rational(-4, 9), Rational(-3, 2));
}

TEST(Rational, Order) {
  EXPECT_LT(Rational(1, 3), Rational(1, 2));
  EXPECT_LT(Rational(-1, 2), Rational(-1, 3));
  EXPECT_GT(Rational(kLargest, kLargest - 1), Rational(kLargest - 1, kLargest));
  EXPECT_GE(Rational(4, 2), Rational(2));
}

TEST(Rational, ReducesBeforeItMultiplies) {
  EXPECT_EQ(Rational(kLargest, 3) * Rational(3, kLargest), Rational(1));
  EXPECT_EQ(Rational(1, kLargest) + Rational(1, kLargest), Rational(2, kLargest));
}

TEST(Rational, RefusesWhatHasNoValue) {
  test::expect_error(Code::invalid_argument, {"5/0"}, [] { return Rational(5, 0); });
  test::expect_error(Code::invalid_argument, {"1/0"}, [] { return Rational(1) / Rational(0); });
  test::expect_error(Code::invalid_argument, {"64 bits"},
                     [] { return Rational(kLargest) + Rational(1); });
  test::expect_error(Code::invalid_argument, {"64 bits"},
                     [] { return Rational(kLargest) * Rational(2); });
}

}  // namespace
}  // namespace tessera
