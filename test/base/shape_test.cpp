// SPDX-License-Identifier: Apache-2.0
// Shapes and 64-bit arithmetic that refuses to overflow.
#include "tessera/base/shape.hpp"

#include <limits>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

namespace tessera {
namespace {

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

std::string message_of(const auto& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::invalid_argument);
    return error.what();
  }
  return "nothing was thrown";
}

TEST(CheckedArithmetic, GivesTheResultOrBothValues) {
  EXPECT_EQ(checked_multiply(3'000'000'000, 3), 9'000'000'000);
  EXPECT_EQ(checked_multiply(kMax, 1), kMax);
  EXPECT_EQ(checked_add(kMax - 1, 1), kMax);
  EXPECT_EQ(message_of([] { checked_multiply(4'000'000'000, 4'000'000'000); }),
            "4000000000 x 4000000000 does not fit 64 bits");
  EXPECT_EQ(message_of([] { checked_add(kMax, 1); }),
            "9223372036854775807 + 1 does not fit 64 bits");
  EXPECT_THROW(checked_multiply(std::numeric_limits<std::int64_t>::min(), -1), Error);
}

TEST(CheckedArithmetic, RoundsUpAtTheEdges) {
  EXPECT_EQ(ceil_divide(0, 16), 0);
  EXPECT_EQ(ceil_divide(1, 16), 1);
  EXPECT_EQ(ceil_divide(32, 16), 2);
  EXPECT_EQ(ceil_divide(33, 16), 3);
  EXPECT_EQ(ceil_divide(kMax, 2), kMax / 2 + 1) << "the sum a + b - 1 would overflow";
  EXPECT_EQ(round_up(33, 16), 48);
  EXPECT_EQ(round_up(48, 16), 48);
}

TEST(Shape, CountsElements) {
  EXPECT_EQ(Shape().numel(), 1);
  EXPECT_EQ(Shape().rank(), 0);
  const Shape shape{4, 256, 384};
  EXPECT_EQ(shape.numel(), 4 * 256 * 384);
  EXPECT_EQ(shape[1], 256);
  EXPECT_EQ(shape[-1], 384);
  EXPECT_EQ(shape.to_string(), "[4, 256, 384]");
  EXPECT_EQ(Shape({0, 5}).numel(), 0);
  EXPECT_TRUE(shape == Shape({4, 256, 384}));
  EXPECT_FALSE(shape == Shape({4, 256}));
}

TEST(Shape, RefusesWhatCannotBe) {
  EXPECT_EQ(message_of([] { Shape({2, -1}); }), "shape [2, -1] has a negative size");
  EXPECT_THROW(Shape({1ll << 32, 1ll << 32}), Error);
  EXPECT_EQ(message_of([] { Shape({2, 3})[2]; }), "dimension 2 of shape [2, 3]");
  EXPECT_THROW((Shape({2, 3})[-3]), Error);
}

}  // namespace
}  // namespace tessera
