// SPDX-License-Identifier: Apache-2.0
// Slices of logical tensors against a walk over every element.
#include "tessera/nn/partition.hpp"

#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.hpp"

namespace tessera::nn {
namespace {

struct Case {
  Shape shape;
  int dimension;
  std::vector<Interval> kept;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> list = {
      {{7}, 0, {{2, 5}}},
      {{7, 3}, 0, {{0, 4}}},
      {{7, 3}, 1, {{1, 2}}},
      {{5, 12}, 1, {{1, 3}, {5, 7}, {9, 11}}},
      {{12}, 0, {{0, 2}, {4, 6}, {8, 10}}},
      {{3, 4, 5}, 1, {{1, 2}, {3, 4}}},
      {{3, 4, 5}, 2, {{0, 5}}},
      {{4, 6}, 1, {{2, 2}, {3, 6}}},
  };
  return list;
}

/// Logical index of each local element, by counting all indices.
std::vector<std::int64_t> walk(const Case& c) {
  std::int64_t inner = 1;
  for (int d = c.dimension + 1; d < c.shape.rank(); ++d) inner *= c.shape[d];
  std::vector<std::int64_t> indices;
  for (std::int64_t i = 0; i < c.shape.numel(); ++i) {
    const std::int64_t at = i / inner % c.shape[c.dimension];
    for (const Interval& interval : c.kept)
      if (at >= interval.begin && at < interval.end) indices.push_back(i);
  }
  return indices;
}

TEST(Partition, EveryRangeMapsAsAWalkOverAllElementsSays) {
  for (const Case& c : cases()) {
    const Partition partition(c.shape, c.dimension, c.kept);
    const auto expected = walk(c);
    const auto size = static_cast<std::int64_t>(expected.size());
    ASSERT_EQ(partition.local().numel(), size);
    EXPECT_FALSE(partition.whole());
    for (std::int64_t begin = 0; begin <= size; ++begin)
      for (std::int64_t count = 0; begin + count <= size; ++count) {
        std::vector<std::int64_t> found(static_cast<std::size_t>(count), -1);
        for_each_run(partition, begin, count,
                     [&](std::int64_t local, std::int64_t logical, std::int64_t length) {
                       for (std::int64_t i = 0; i < length; ++i)
                         found.at(static_cast<std::size_t>(local - begin + i)) = logical + i;
                     });
        const auto first = expected.begin() + begin;
        EXPECT_EQ(found, std::vector<std::int64_t>(first, first + count));
        EXPECT_LE(partition.runs(begin, count).size(), 3 * c.kept.size());
      }
  }
}

TEST(Partition, WholeIsOneRun) {
  const Partition partition(Shape{3, 4});
  EXPECT_TRUE(partition.whole());
  EXPECT_EQ(partition.local(), partition.logical());
  EXPECT_EQ(partition.runs(5, 6), (std::vector<Runs>{{5, 5, 6, 1, 6, 6}}));
  EXPECT_EQ(partition.leading(7), 7);
  EXPECT_EQ(partition.leading(70), 12);
}

TEST(Partition, LeadingElementsOfRows) {
  const Partition rows(Shape{7, 3}, 0, {{2, 5}});
  for (std::int64_t elements = 0; elements <= 21; ++elements)
    EXPECT_EQ(rows.leading(elements), std::clamp<std::int64_t>(elements - 6, 0, 9));
}

TEST(Partition, SharesAreInOrderAndNearlyEqual) {
  for (const std::int64_t size : {0, 1, 5, 12, 50257})
    for (const int ranks : {1, 2, 3, 5, 8}) {
      std::int64_t next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const Interval share = balanced_share(size, ranks, rank);
        EXPECT_EQ(share.begin, next);
        EXPECT_EQ(share.size(), size / ranks + (rank < size % ranks ? 1 : 0));
        next = share.end;
      }
      EXPECT_EQ(next, size);
    }
}

TEST(Partition, ImpossibleIntervalsAreNamed) {
  test::expect_error(Code::invalid_argument, {"3 to 8", "[7, 3]"}, [] {
    Partition(Shape{7, 3}, 0, {{3, 8}});
  });
  test::expect_error(Code::invalid_argument, {"1 to 3"}, [] {
    Partition(Shape{7, 3}, 0, {{0, 2}, {1, 3}});
  });
  test::expect_error(Code::invalid_argument, {"dimension 2"}, [] {
    Partition(Shape{7, 3}, 2, {{0, 1}});
  });
}

}  // namespace
}  // namespace tessera::nn
