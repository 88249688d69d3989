// SPDX-License-Identifier: Apache-2.0
// Which token is chosen from known logits.
#include "tessera/inference/sampling.hpp"

#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.hpp"

namespace tessera::inference {
namespace {

// Probabilities 0.5, 0.3, 0.15, 0.05.
const std::vector<float> kLogits = {std::log(0.3f), std::log(0.5f), std::log(0.05f),
                                    std::log(0.15f)};

std::vector<double> frequencies(const SamplingOptions& options, int draws = 20000) {
  std::vector<double> found(kLogits.size(), 0);
  for (int i = 0; i < draws; ++i)
    found[static_cast<std::size_t>(sample(kLogits, options, static_cast<std::uint64_t>(i)))] +=
        1.0 / draws;
  return found;
}

TEST(Sampling, TemperatureZeroTakesTheFirstLargest) {
  const std::vector<float> tied = {1, 5, 5, 2};
  EXPECT_EQ(sample(tied, {.temperature = 0}, 3), 1);
}

TEST(Sampling, DrawsFollowTheProbabilities) {
  const auto found = frequencies({});
  for (std::size_t i = 0; i < kLogits.size(); ++i)
    EXPECT_NEAR(found[i], std::exp(static_cast<double>(kLogits[i])), 0.02) << i;
}

TEST(Sampling, TemperatureSharpens) {
  // 0.5^2 : 0.3^2 : 0.15^2 : 0.05^2
  const auto found = frequencies({.temperature = 0.5});
  EXPECT_NEAR(found[1], 0.25 / 0.365, 0.02);
  EXPECT_NEAR(found[0], 0.09 / 0.365, 0.02);
}

TEST(Sampling, TopKKeepsTheLikeliest) {
  const auto found = frequencies({.top_k = 2});
  EXPECT_NEAR(found[1], 0.5 / 0.8, 0.02);
  EXPECT_EQ(found[2], 0);
  EXPECT_EQ(found[3], 0);
}

TEST(Sampling, TopPKeepsTheSmallestSetThatReachesIt) {
  const auto found = frequencies({.top_p = 0.6});  // 0.5 alone is too little
  EXPECT_NEAR(found[1], 0.5 / 0.8, 0.02);
  EXPECT_NEAR(found[0], 0.3 / 0.8, 0.02);
  EXPECT_NEAR(frequencies({.top_p = 0.1})[1], 1, 1e-9);
}

TEST(Sampling, TheSeedAndThePositionDecide) {
  std::set<std::int32_t> seen;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const SamplingOptions options{.seed = seed};
    EXPECT_EQ(sample(kLogits, options, 9), sample(kLogits, options, 9));
    seen.insert(sample(kLogits, options, 9));
  }
  EXPECT_GE(seen.size(), 3u);
}

TEST(Sampling, ImpossibleOptionsAreNamed) {
  const auto refused = [](const SamplingOptions& options, const char* word) {
    test::expect_error(Code::invalid_argument, {word}, [&] { validate(options); });
  };
  refused({.temperature = -1}, "temperature -1");
  refused({.temperature = std::numeric_limits<double>::quiet_NaN()}, "temperature nan");
  refused({.top_k = -3}, "top-k -3");
  refused({.top_p = 0}, "top-p 0");
  refused({.top_p = 1.5}, "top-p 1.5");
}

}  // namespace
}  // namespace tessera::inference
