// SPDX-License-Identifier: Apache-2.0
// What programs see of CUDA in every build, with and without a GPU.
#include "tessera/device/cuda.hpp"

#include <cstring>

#include <gtest/gtest.h>

#include "support/expect_error.hpp"

namespace tessera {
namespace {

const Device kFirst{DeviceType::cuda, 0};

TEST(Cuda, WithoutGpuSaysWhyAndWorksOnTheHost) {
  if (cuda_device_count() > 0) GTEST_SKIP() << "there is a GPU";
  const std::string reason = cuda_unavailable_reason();
  EXPECT_FALSE(reason.empty());
  test::expect_error(Code::not_supported, {reason}, [] { choose_cuda_device(0, 1); });
  test::expect_error(Code::not_supported, {"cuda:0", reason}, [] { make_stream(kFirst); });
  test::expect_error(Code::not_supported, {"cuda:0", reason}, [] { current_stream(kFirst); });
  test::expect_error(Code::not_supported, {"cuda:0"},
                     [] { allocate(64, kFirst, Purpose::workspace); });
}

TEST(Cuda, WithGpuHasNoReason) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_unavailable_reason();
  EXPECT_EQ(cuda_unavailable_reason(), "");
}

TEST(Cuda, StreamsOfTheCpuAreTheDefaultStream) {
  EXPECT_TRUE(make_stream(Device{}).device().is_cpu());
  const StreamScope scope{Stream{}};
  EXPECT_TRUE(current_stream(Device{}).device().is_cpu());
}

TEST(Cuda, HostMemoryIsTheCpus) {
  const int here = 0;
  EXPECT_TRUE(device_of_address(&here).is_cpu());
  EXPECT_TRUE(device_of_address(allocate_pinned(64, Purpose::workspace).data()).is_cpu());
  EXPECT_TRUE(device_of_address(nullptr).is_cpu());
}

TEST(Cuda, PinnedMemoryIsHostMemoryAndCounted) {
  const std::int64_t before = memory_ledger(Device{}).current(Purpose::snapshot);
  {
    const Buffer buffer = allocate_pinned(1000, Purpose::snapshot);
    std::memset(buffer.data(), 7, buffer.bytes());
    EXPECT_EQ(buffer.as<char>()[999], 7);
    EXPECT_TRUE(buffer.device().is_cpu());
    EXPECT_EQ(memory_ledger(Device{}).current(Purpose::snapshot), before + 1000);
  }
  EXPECT_EQ(memory_ledger(Device{}).current(Purpose::snapshot), before);
  EXPECT_FALSE(allocate_pinned(0, Purpose::snapshot));
}

}  // namespace
}  // namespace tessera
