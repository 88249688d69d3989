// SPDX-License-Identifier: Apache-2.0
// Philox against Random123's published vectors, and the distributions built on it.
#include "tessera/base/random.hpp"

#include <set>

#include <gtest/gtest.h>

namespace tessera {
namespace {

using Words = std::array<std::uint32_t, 4>;

// kat_vectors of Random123, philox4x32 with 10 rounds.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStream, ElementsAreWordsOfTheirBlock) {
  const RandomStream random(0x299f31d0a4093822, 0x0370734413198a2e);
  // Block index 0x85a308d3243f6a88 is the third known answer.
  EXPECT_EQ(random.block(0x85a308d3243f6a88),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
  for (std::uint64_t i = 0; i < 64; ++i) EXPECT_EQ(random.bits(i), random.block(i / 4)[i % 4]);
}

TEST(RandomStream, SeedStreamAndIndexAllMatter) {
  std::set<std::uint32_t> seen;
  for (std::uint64_t seed : {std::uint64_t{1}, std::uint64_t{1} << 32})
    for (std::uint64_t stream : {std::uint64_t{1}, std::uint64_t{1} << 32})
      for (std::uint64_t index : {std::uint64_t{1}, std::uint64_t{1} << 40})
        seen.insert(RandomStream(seed, stream).bits(index));
  EXPECT_EQ(seen.size(), 8u);
}

TEST(RandomStream, UniformStaysBelowOneAndFillsTheInterval) {
  const RandomStream random(42, 0);
  constexpr int kCount = 100000;
  double sum = 0, square = 0;
  for (std::uint64_t i = 0; i < kCount; ++i) {
    const float value = random.uniform(i);
    ASSERT_GE(value, 0.0f);
    ASSERT_LT(value, 1.0f);
    sum += value;
    square += static_cast<double>(value) * value;
  }
  EXPECT_NEAR(sum / kCount, 0.5, 0.005);
  EXPECT_NEAR(square / kCount, 1.0 / 3, 0.005);
}

TEST(RandomStream, NormalHasTheMomentsOfANormal) {
  const RandomStream random(42, 3);
  constexpr int kCount = 100000;
  double sum = 0, square = 0, fourth = 0;
  for (std::uint64_t i = 0; i < kCount; ++i) {
    const double value = random.normal(i);
    ASSERT_TRUE(std::isfinite(value));
    sum += value;
    square += value * value;
    fourth += value * value * value * value;
  }
  EXPECT_NEAR(sum / kCount, 0.0, 0.015);
  EXPECT_NEAR(square / kCount, 1.0, 0.02);
  EXPECT_NEAR(fourth / kCount, 3.0, 0.15);
}

TEST(RandomStream, NeighbouringNormalsAreIndependent) {
  const RandomStream random(42, 4);
  constexpr int kPairs = 50000;
  double product = 0;
  for (std::uint64_t i = 0; i < kPairs; ++i)
    product += static_cast<double>(random.normal(2 * i)) * random.normal(2 * i + 1);
  EXPECT_NEAR(product / kPairs, 0.0, 0.02);
}

TEST(Mix, DependsOnBothWordsAndTheirOrder) {
  std::set<std::uint64_t> seen;
  for (std::uint64_t a = 0; a < 100; ++a)
    for (std::uint64_t b = 0; b < 100; ++b) seen.insert(mix(a, b));
  EXPECT_EQ(seen.size(), 10000u);
  EXPECT_NE(mix(1, 2), mix(2, 1));
}

}  // namespace
}  // namespace tessera
