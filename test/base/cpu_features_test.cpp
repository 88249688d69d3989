// SPDX-License-Identifier: Apache-2.0
// What this process may use of the processor.
#include "tessera/base/cpu_features.hpp"

#include <sched.h>
#include <thread>

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(CpuFeatures, NamesTheInstructionSet) {
  const std::string name = simd_name();
  EXPECT_TRUE(name == "avx512" || name == "avx2" || name == "neon" || name == "sve" ||
              name == "baseline")
      << name;
  if (has_bf16_instructions()) {
    EXPECT_NE(name, "baseline");
  }
  EXPECT_FALSE(cpu_model_name().empty());
}

TEST(CpuFeatures, CountsOnlyTheCoresOfTheAffinityMask) {
  ASSERT_GE(available_cores(), 1);
  ASSERT_LE(available_cores(), static_cast<int>(std::thread::hardware_concurrency()));
  int cores = 0;
  std::thread pinned([&] {
    cpu_set_t allowed;
    ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
    int first = 0;
    while (!CPU_ISSET(first, &allowed)) ++first;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    cores = available_cores();
  });
  pinned.join();
  EXPECT_EQ(cores, 1);
}

TEST(CpuFeatures, ThreadsAreAtLeastOne) {
  const int before = threads();
  set_threads(3);
  EXPECT_EQ(threads(), 3);
  set_threads(0);
  EXPECT_EQ(threads(), 1);
  set_threads(before);
}

}  // namespace
}  // namespace tessera
