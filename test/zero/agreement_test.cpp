// SPDX-License-Identifier: Apache-2.0
// What ranks have to see alike.
#include "zero/agreement.hpp"

#include <array>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect_error.hpp"
#include "zero/world.hpp"

namespace tessera::zero {
namespace {

using testing::world;

TEST(AgreeOnStep, SumsWhileRanksAgree) {
  for (const bool applied : {true, false}) {
    std::array<double, 2> sums = {world().rank() + 1.0, 0.25};
    agree_on_step(world(), applied, sums);
    EXPECT_EQ(sums[0], world().size() * (world().size() + 1) / 2.0);
    EXPECT_EQ(sums[1], world().size() / 4.0);
  }
}

TEST(AgreeOnStep, StopsEveryRankWhenOneGoesItsOwnWay) {
  if (world().size() == 1) GTEST_SKIP() << "one rank agrees with itself";
  for (const bool most : {true, false}) {
    const bool applied = (world().rank() == world().size() - 1) != most;
    const int appliers = most ? world().size() - 1 : 1;
    test::expect_error(
        Code::internal,
        {fmt::format("{} of {} ranks applied a step", appliers, world().size()), "checkpoint"},
        [&] { agree_on_step(world(), applied, {}); });
  }
}

}  // namespace
}  // namespace tessera::zero
