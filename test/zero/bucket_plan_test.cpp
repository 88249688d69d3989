// SPDX-License-Identifier: Apache-2.0
// Buckets cover every element once, in order, and keep norm blocks whole.
#include "zero/bucket_plan.hpp"

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/kernels/reduce.hpp"

namespace tessera::zero {
namespace {

using kernels::kNormBlock;

FlatLayout sample(int ranks) {
  FlatLayout layout(ranks);
  layout.begin_unit("small");
  layout.add("a", {7});
  layout.begin_unit("empty");
  layout.begin_unit("large");
  layout.add("b", {50021});
  layout.begin_unit("last");
  layout.add("c", {3001});
  return layout;
}

constexpr std::int64_t kCapacities[] = {1, 1024, 5000, 20000, 1 << 20};

TEST(BucketPlan, SlicesAreCoveredOnceInOrder) {
  for (const int ranks : {1, 2, 3, 8}) {
    const FlatLayout layout = sample(ranks);
    for (const std::int64_t capacity : kCapacities) {
      for (const bool backward : {false, true}) {
        std::vector<std::int64_t> next(layout.units().size(), 0);
        int unit = backward ? 3 : 0;
        for (const Bucket& bucket : plan_slices(layout, capacity, backward)) {
          std::int64_t elements = 0;
          for (const BucketPart& part : bucket.parts) {
            EXPECT_TRUE(backward ? part.unit <= unit : part.unit >= unit);
            unit = part.unit;
            EXPECT_EQ(part.begin, next[static_cast<std::size_t>(unit)]);
            EXPECT_EQ(part.begin % kNormBlock, 0);
            EXPECT_GT(part.count, 0);
            next[static_cast<std::size_t>(unit)] += part.count;
            elements += part.count;
          }
          EXPECT_EQ(bucket.elements, elements);
          EXPECT_LE(elements, std::max(capacity / ranks, kNormBlock));
        }
        for (int u = 0; u < 4; ++u)
          EXPECT_EQ(next[static_cast<std::size_t>(u)], layout.slice_elements(u));
      }
    }
  }
}

TEST(BucketPlan, RangesCoverAllUnitsFromTheEnd) {
  const FlatLayout layout = sample(3);
  for (const std::int64_t capacity : kCapacities) {
    std::int64_t end = layout.padded();
    for (const Bucket& bucket : plan_ranges(layout, capacity)) {
      EXPECT_EQ(bucket.start + bucket.elements, end);
      EXPECT_LE(bucket.elements, std::max(capacity, kNormBlock));
      std::int64_t elements = 0;
      for (const BucketPart& part : bucket.parts) {
        elements += part.count;
        const std::int64_t first = layout.unit(part.unit).start + part.begin;
        EXPECT_GE(first, bucket.start);
        EXPECT_LE(first + part.count, end);
      }
      EXPECT_EQ(elements, bucket.elements);
      end = bucket.start;
    }
    EXPECT_EQ(end, 0);
  }
}

TEST(BucketPlan, EverythingFitsOneBucket) {
  const FlatLayout layout = sample(2);
  EXPECT_EQ(plan_slices(layout, layout.padded(), true).size(), 1u);
  EXPECT_EQ(plan_ranges(layout, layout.padded()).size(), 1u);
  EXPECT_TRUE(plan_slices(FlatLayout(2), 100, true).empty());
  EXPECT_TRUE(plan_ranges(FlatLayout(2), 100).empty());
}

}  // namespace
}  // namespace tessera::zero
