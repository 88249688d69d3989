// SPDX-License-Identifier: Apache-2.0
// Attention over keys in parts against attention over all of them.
#include "tessera/kernels/attention_merge.hpp"

#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

constexpr std::int64_t kBatch = 2, kQueries = 5, kHeads = 3, kDim = 7;
constexpr std::int64_t kRows = kBatch * kQueries * kHeads;

/// A softmax over some keys, for each row: their scores' log-sum-exp and the mean of their values.
struct Part {
  std::vector<float> mean, lse;
};

std::int64_t lse_index(std::int64_t row) {  // row: [batch, queries, heads]
  const std::int64_t head = row % kHeads, query = row / kHeads % kQueries;
  return (row / kHeads / kQueries * kHeads + head) * kQueries + query;
}

TEST(AttentionMerge, PartsBecomeOneSoftmax) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<double> weights(kRows), sums(kRows * kDim);
  std::vector<float> sum(kRows * kDim, NAN), lse(kRows, NAN);
  // Scores of very different size: a later part may outweigh all before it, and the other way
  // round.
  bool first = true;
  for (const float size : {0.0f, 60.0f, -80.0f, 61.0f}) {
    Part part{std::vector<float>(kRows * kDim), std::vector<float>(kRows)};
    for (float& value : part.mean) value = normal(random);
    for (float& value : part.lse) value = size + normal(random);
    for (std::int64_t row = 0; row < kRows; ++row) {
      const double weight = std::exp(static_cast<double>(part.lse[lse_index(row)]));
      weights[row] += weight;
      for (std::int64_t i = 0; i < kDim; ++i)
        sums[row * kDim + i] += weight * static_cast<double>(part.mean[row * kDim + i]);
    }
    testing::on_device::attention_merge({.part = part.mean.data(),
                                         .part_lse = part.lse.data(),
                                         .sum = sum.data(),
                                         .lse = lse.data(),
                                         .first = first,
                                         .batch = kBatch,
                                         .queries = kQueries,
                                         .heads = kHeads,
                                         .head_dim = kDim,
                                         .dtype = DType::fp32});
    first = false;
    for (std::int64_t row = 0; row < kRows; ++row) {
      EXPECT_NEAR(lse[lse_index(row)], std::log(weights[row]), 2e-5);
      for (std::int64_t i = 0; i < kDim; ++i)
        EXPECT_NEAR(sum[row * kDim + i], sums[row * kDim + i] / weights[row], 2e-5);
    }
  }
}

}  // namespace
}  // namespace tessera::kernels
