// SPDX-License-Identifier: Apache-2.0
// Wall-clock time.
#include "tessera/base/timer.hpp"

#include <thread>

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(Timer, MeasuresSinceTheLastRestart) {
  Timer timer;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const double first = timer.seconds();
  EXPECT_GE(first, 0.02);
  EXPECT_GE(timer.seconds(), first);
  timer.restart();
  EXPECT_LT(timer.seconds(), first);
}

}  // namespace
}  // namespace tessera
