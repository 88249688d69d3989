// SPDX-License-Identifier: Apache-2.0
// The order of samples: permutations, epochs, and batches that do not depend on the rank count.
#include "tessera/data/sampler.hpp"

#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::data {
namespace {

using test::expect_error;

TEST(Permutation, VisitsEveryElementOnce) {
  for (const std::int64_t size : {1, 2, 3, 4, 5, 16, 17, 1000, 4096, 4097, 70000}) {
    const Permutation permutation(size, 1234, 7);
    std::vector<bool> seen(static_cast<std::size_t>(size));
    for (std::int64_t i = 0; i < size; ++i) {
      const std::int64_t value = permutation(i);
      ASSERT_GE(value, 0);
      ASSERT_LT(value, size);
      ASSERT_FALSE(seen[static_cast<std::size_t>(value)]) << size;
      seen[static_cast<std::size_t>(value)] = true;
    }
  }
}

TEST(Permutation, HugeSizesWork) {
  const Permutation permutation(std::int64_t{1} << 61, 1, 1);
  std::set<std::int64_t> values;
  for (std::int64_t i = 0; i < 100; ++i) values.insert(permutation(i));
  EXPECT_EQ(values.size(), 100u);
}

// A shuffle that keeps order, or neighbours together, would show here.
TEST(Permutation, LooksRandom) {
  const std::int64_t size = 10007;
  double distance = 0;
  double product = 0;
  std::int64_t fixed = 0;
  const Permutation permutation(size, 5, 9);
  for (std::int64_t i = 0; i < size; ++i) {
    const auto a = static_cast<double>(permutation(i));
    const auto b = static_cast<double>(permutation((i + 1) % size));
    distance += std::abs(a - b) / static_cast<double>(size);
    product += (a / static_cast<double>(size) - 0.5) *
               (static_cast<double>(i) / static_cast<double>(size) - 0.5);
    fixed += permutation(i) == i ? 1 : 0;
  }
  const auto n = static_cast<double>(size);
  EXPECT_NEAR(distance / n, 1.0 / 3, 0.01);              // standard error 0.0024
  EXPECT_NEAR(product / n, 0, 5 / (12 * std::sqrt(n)));  // five standard errors
  EXPECT_LT(fixed, 10);                                  // Poisson with mean 1
}

TEST(Permutation, SmallOnesAreAllReached) {
  std::set<std::vector<std::int64_t>> orders;
  for (std::uint64_t stream = 0; stream < 200; ++stream) {
    const Permutation permutation(3, 42, stream);
    orders.insert({permutation(0), permutation(1), permutation(2)});
  }
  EXPECT_EQ(orders.size(), 6u);
}

TEST(Sampler, EveryEpochVisitsEverySequenceOnceInAnotherOrder) {
  const Sampler sampler(37, 1234);
  std::vector<std::int64_t> first;
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    std::set<std::int64_t> seen;
    std::vector<std::int64_t> order;
    for (std::int64_t i = 0; i < 37; ++i) {
      const Sampler::Position position = sampler.at(epoch * 37 + i);
      EXPECT_EQ(position.epoch, epoch);
      seen.insert(position.sequence);
      order.push_back(position.sequence);
    }
    EXPECT_EQ(seen.size(), 37u);
    EXPECT_NE(order, first);
    if (epoch == 0) first = order;
  }
  std::vector<std::int64_t> other_seed;
  for (std::int64_t i = 0; i < 37; ++i) other_seed.push_back(Sampler(37, 1235).at(i).sequence);
  EXPECT_NE(other_seed, first);
}

// Runs must be repeatable by later versions.
TEST(Sampler, TheOrderIsFixedForEver) {
  const Sampler sampler(10, 1234);
  std::vector<std::int64_t> order;
  for (std::int64_t i = 0; i < 10; ++i) order.push_back(sampler.at(i).sequence);
  EXPECT_EQ(order, (std::vector<std::int64_t>{4, 2, 3, 8, 1, 7, 9, 6, 5, 0}));
}

TEST(Sampler, UnshuffledAndWrongArguments) {
  EXPECT_EQ(Sampler(5, 1, false).at(7).sequence, 2);
  expect_error(Code::invalid_argument, {"no sequences"}, [] { Sampler none(0, 1); });
  expect_error(Code::invalid_argument, {"-1"}, [] { Sampler(5, 1).at(-1); });
}

TEST(Batches, TheGlobalBatchDoesNotDependOnTheRankCount) {
  const test::TemporaryFolder folder;
  TokenFileWriter writer(folder / "a", 257);
  std::vector<Token> ids(251);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<Token>(i);
  writer.add_document(ids);
  writer.commit();
  CorpusOptions options;
  options.sources = {folder / "a"};
  const Sequences sequences(std::make_shared<Corpus>(ByteTokenizer(), options), 10);
  const Batches batches(sequences, 99);
  const std::int64_t global = 12;

  // Three steps of 12 rows from 25 sequences cross the end of the first epoch.
  std::vector<Token> expected(3 * 12 * 10);
  std::vector<Token> expected_targets(3 * 12 * 10);
  batches.fill(0, 36, expected.data(), expected_targets.data());
  std::multiset<Token> firsts;
  for (std::size_t row = 0; row < 25; ++row) firsts.insert(expected[row * 10]);
  for (Token t = 0; t < 250; t += 10) EXPECT_EQ(firsts.count(t), 1u);

  for (const auto& shape : {BatchShape{12, 1, 1}, BatchShape{2, 3, 2}, BatchShape{1, 4, 3}}) {
    ASSERT_EQ(shape.global(), global);
    std::vector<Token> inputs(expected.size());
    std::vector<Token> targets(expected.size());
    // Steps backwards: any sample can be had at any time.
    for (std::int64_t step = 2; step >= 0; --step)
      for (std::int64_t rank = 0; rank < shape.ranks; ++rank)
        for (std::int64_t j = 0; j < shape.accumulation; ++j) {
          const std::int64_t first = step * global + shape.first_row(j, rank);
          batches.fill(first, shape.micro, inputs.data() + first * 10, targets.data() + first * 10);
        }
    EXPECT_EQ(inputs, expected);
    EXPECT_EQ(targets, expected_targets);
  }
}

}  // namespace
}  // namespace tessera::data
