// SPDX-License-Identifier: Apache-2.0
#include "tessera/planning/search.hpp"

#include <algorithm>

#include <gtest/gtest.h>

namespace tessera::planning {
namespace {

constexpr std::int64_t kGB = 1'000'000'000;
constexpr MeshShape kAnyMesh{1 << 20, 1 << 20, 1 << 20, 1 << 20};

Workload gpt3(std::int64_t batch) {
  Workload work;
  work.model = {96, 12288, 96, 4 * 12288, 51200, 2048};
  work.batch = batch;
  work.length = 2048;
  return work;
}

TEST(SearchTest, PlansFitDivideTheWorkAndGetSlower) {
  const Workload work = gpt3(1536);
  const SearchResult found = search_plans(work, find_machine("h100"), 256, 80 * kGB, kAnyMesh);
  ASSERT_GT(found.plans.size(), 3u);
  double before = 0;
  for (const Plan& plan : found.plans) {
    EXPECT_EQ(plan.layout.mesh.ranks(), 256);
    EXPECT_EQ(plan.layout.accumulation(work) * plan.layout.mesh.data * plan.layout.micro_batch,
              1536);
    EXPECT_LE(plan.forecast.memory.total(), 80 * kGB);
    EXPECT_GE(plan.forecast.seconds.total(), before);
    before = plan.forecast.seconds.total();
  }
  EXPECT_LE(found.plans.front().layout.mesh.tensor, 8) << "tensor groups stay inside a node";
}

TEST(SearchTest, SaysWhatIsSmallestWhenNothingFits) {
  const SearchResult found = search_plans(gpt3(64), find_machine("h100"), 8, 80 * kGB, kAnyMesh);
  EXPECT_TRUE(found.plans.empty());
  EXPECT_GT(found.smallest.forecast.memory.total(), 80 * kGB);
  EXPECT_GT(found.smallest.layout.micro_batch, 0);
}

TEST(SearchTest, UsesOnlyTheAxesItMay) {
  const SearchResult found =
      search_plans(gpt3(512), find_machine("h100"), 512, 80 * kGB, {1, 1 << 20, 1, 8});
  ASSERT_FALSE(found.plans.empty());
  for (const Plan& plan : found.plans) {
    EXPECT_EQ(plan.layout.mesh.pipeline, 1);
    EXPECT_EQ(plan.layout.mesh.sequence, 1);
  }
}

TEST(SearchTest, TokenShardsMakeRoomOnTensorAxesOnly) {
  const SearchResult found =
      search_plans(gpt3(512), find_machine("h100"), 512, 80 * kGB, {1 << 20, 1 << 20, 1, 8});
  const auto shards = [](const Plan& plan) { return plan.layout.sequence_parallel; };
  EXPECT_TRUE(std::ranges::any_of(found.plans, shards));
  for (const Plan& plan : found.plans) EXPECT_TRUE(!shards(plan) || plan.layout.mesh.tensor > 1);
}

TEST(SearchTest, RingsShareSequencesAmongMoreRanksThanHeads) {
  Workload work = gpt3(1);
  work.model.heads = 4;
  const auto largest = [&](std::int64_t length) {
    work.length = length;
    int ranks = 0;
    for (const Plan& plan :
         search_plans(work, find_machine("h100"), 16, 100000 * kGB, {1, 1, 1 << 20, 1}).plans)
      ranks = std::max(ranks, plan.layout.mesh.sequence);
    return ranks;
  };
  EXPECT_EQ(largest(1 << 17), 16);
  EXPECT_EQ(largest(16), 0) << "two tokens a rank are the least";
}

TEST(SearchTest, ABatchThatNoDataAxisDividesIsTold) {
  const SearchResult found =
      search_plans(gpt3(3), find_machine("h100"), 8, 80 * kGB, {1, 1 << 20, 1, 1});
  EXPECT_EQ(found.smallest.layout.micro_batch, 0);
}

}  // namespace
}  // namespace tessera::planning
