// SPDX-License-Identifier: Apache-2.0
// Clocks that are wrong on purpose: their offset is found within the error that is promised.
#include "tessera/comm/clock.hpp"

#include <cstdlib>

#include <gtest/gtest.h>

#include "tessera/base/timeline.hpp"
#include "tessera/comm/runtime.hpp"

namespace tessera {
namespace {

// The ranks of a test share a machine, and its steady clock.
TEST(Clock, FindsArtificialOffsetsWithinTheError) {
  Runtime runtime;
  Communicator& world = runtime.world();
  const std::int64_t ahead = world.rank() * 3'000'000'000LL * (world.rank() % 2 == 0 ? 1 : -1);
  const auto wrong = [ahead] { return Timeline::now() + ahead; };
  const std::int64_t before = wrong();
  const ClockOffset measured = measure_clock(world, wrong);
  EXPECT_LE(std::abs(measured.offset + ahead), measured.error) << "rank " << world.rank();
  EXPECT_LT(measured.error, 100'000'000) << "a round trip of 0.2 s";
  EXPECT_GE(measured.at, before);
  EXPECT_LE(measured.at, wrong());
  if (world.rank() == 0) {
    EXPECT_EQ(measured.offset, 0);
    EXPECT_EQ(measured.error, 0);
  } else {
    EXPECT_GT(measured.error, 0);
  }
}

TEST(Clock, IsNoTraffic) {
  Runtime runtime;
  measure_clock(runtime.world(), Timeline::now, 2);
  EXPECT_EQ(runtime.world().traffic().counts().size(), 0u);
}

}  // namespace
}  // namespace tessera
