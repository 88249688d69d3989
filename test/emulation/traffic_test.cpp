// SPDX-License-Identifier: Apache-2.0
// What counts as moved between memory and the emulated cache.
#include "emulation/traffic.hpp"

#include <gtest/gtest.h>

#include "emulation/device_data.hpp"

namespace tessera::emulation {
namespace {

constexpr std::size_t kSmall = std::size_t{64} << 10;
constexpr std::size_t kLarge = std::size_t{4} << 20;  // four times the cache

// Addresses alone matter: nothing is touched.
class Traffic : public testing::Test {
 protected:
  Traffic() { cudaMalloc(&memory_, kLarge); }
  ~Traffic() override { cudaFree(memory_); }

  void walk(std::size_t bytes, std::size_t step, bool is_write) {
    for (std::size_t at = 0; at < bytes; at += step) {
      count_access(static_cast<const std::byte*>(memory_) + at, 4, is_write);
    }
  }

  void* memory_ = nullptr;
};

TEST_F(Traffic, OfALargeArrayCountsEachWalk) {
  const TrafficCounter counter;
  for (int walks = 0; walks < 2; ++walks) {
    count_traffic_of("walk");
    walk(kLarge, 4, false);
  }
  ASSERT_EQ(counter.kernels().size(), 2u);
  for (const KernelTraffic& kernel : counter.kernels()) {
    EXPECT_EQ(kernel.loaded, kLarge);
    EXPECT_EQ(kernel.read, kLarge);
    EXPECT_EQ(kernel.stored + kernel.written, 0u);
  }
}

TEST_F(Traffic, OfASmallArrayCountsOnce) {
  const TrafficCounter counter;
  count_traffic_of("walk");
  for (int walks = 0; walks < 3; ++walks) {
    walk(kSmall, 4, false);
    walk(kSmall, 4, true);
  }
  const KernelTraffic& kernel = counter.kernels().front();
  EXPECT_EQ(kernel.loaded, 3 * kSmall);
  EXPECT_EQ(kernel.stored, 3 * kSmall);
  EXPECT_EQ(kernel.read, kSmall);
  EXPECT_EQ(kernel.written, kSmall);
}

TEST_F(Traffic, CountsWholeSectors) {
  const TrafficCounter counter;
  count_traffic_of("strided");
  walk(kLarge, 64, false);
  count_traffic_of("across a border");
  count_access(static_cast<const std::byte*>(memory_) + 30, 4, true);
  EXPECT_EQ(counter.kernels()[0].loaded, kLarge / 16);
  EXPECT_EQ(counter.kernels()[0].read, kLarge / 2);
  EXPECT_EQ(counter.kernels()[1].written, 64u);
}

TEST_F(Traffic, IsThatOfDeviceMemory) {
  const TrafficCounter counter;
  count_traffic_of("elsewhere");
  int local = 0;
  count_access(&local, sizeof(local), true);
  EXPECT_EQ(counter.kernels().front().stored, 0u);
}

TEST_F(Traffic, OfFillsCounts) {
  const emulation_test::TestStream stream;
  const TrafficCounter counter;
  cudaMemsetAsync(memory_, 0, kSmall, stream);
  stream.synchronize();
  ASSERT_EQ(counter.kernels().size(), 1u);
  EXPECT_EQ(counter.kernels().front().written, kSmall);
}

}  // namespace
}  // namespace tessera::emulation
