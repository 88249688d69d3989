// SPDX-License-Identifier: Apache-2.0
// Buffers: counted while they live, aligned, cached for reuse.
#include "tessera/device/buffer.hpp"

#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/device/cuda.hpp"

#include "support/expect_error.hpp"

namespace tessera {
namespace {

std::int64_t in_use(Purpose purpose) {
  return memory_ledger(Device{}).current(purpose);
}

TEST(Buffer, IsCountedWhileItLives) {
  const std::int64_t before = in_use(Purpose::gradients);
  {
    const Buffer buffer = allocate(1000, Device{}, Purpose::gradients);
    EXPECT_EQ(in_use(Purpose::gradients), before + 1000) << "counts what was asked for";
    EXPECT_EQ(buffer.bytes(), 1000u);
    EXPECT_EQ(buffer.purpose(), Purpose::gradients);
    EXPECT_TRUE(buffer.device().is_cpu());
  }
  EXPECT_EQ(in_use(Purpose::gradients), before);
}

TEST(Buffer, MovingCountsOnce) {
  const std::int64_t before = in_use(Purpose::buckets);
  Buffer first = allocate(64, Device{}, Purpose::buckets);
  void* data = first.data();
  Buffer second = std::move(first);
  EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): a moved-from buffer is empty
  EXPECT_EQ(second.data(), data);
  EXPECT_EQ(in_use(Purpose::buckets), before + 64);
  second = allocate(128, Device{}, Purpose::buckets);
  EXPECT_EQ(in_use(Purpose::buckets), before + 128) << "assignment releases what was held";
  second = Buffer();
  EXPECT_EQ(in_use(Purpose::buckets), before);
}

TEST(Buffer, IsAlignedAndWritableToTheEnd) {
  for (const std::size_t bytes : {1ul, 63ul, 65ul, 1025ul, 99'999ul, (2ul << 20) + 1, 5ul << 20}) {
    const Buffer buffer = allocate(bytes, Device{}, Purpose::workspace);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u) << bytes;
    std::memset(buffer.data(), 0x5a, bytes);
    EXPECT_EQ(buffer.as<unsigned char>()[bytes - 1], 0x5a) << bytes;
  }
}

TEST(Buffer, LiveBuffersDoNotOverlap) {
  std::vector<Buffer> buffers;
  for (std::size_t i = 1; i <= 40; ++i) {
    buffers.push_back(allocate(i * 37, Device{}, Purpose::workspace));
    std::memset(buffers.back().data(), static_cast<int>(i), i * 37);
  }
  for (std::size_t i = 0; i < buffers.size(); ++i)
    for (std::size_t j = 0; j < buffers[i].bytes(); ++j)
      ASSERT_EQ(buffers[i].as<unsigned char>()[j], i + 1);
}

TEST(Buffer, FreedBlocksAreReusedUntilTheCacheIsReleased) {
  release_cached_memory(Device{});
  void* data = allocate(3 << 20, Device{}, Purpose::workspace).data();
  const Buffer again = allocate(3 << 20, Device{}, Purpose::activations);
  EXPECT_EQ(again.data(), data) << "the block of the first buffer was free";
  release_cached_memory(Device{});
  std::memset(again.data(), 1, again.bytes());  // still ours
  EXPECT_EQ(again.as<unsigned char>()[again.bytes() - 1], 1);
}

TEST(Buffer, ZeroBytesIsEmpty) {
  const std::int64_t before = memory_ledger(Device{}).current_total();
  const Buffer buffer = allocate(0, Device{}, Purpose::workspace);
  EXPECT_FALSE(buffer);
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(memory_ledger(Device{}).current_total(), before);
}

TEST(Buffer, TakesOverMemoryAndGivesItBack) {
  int block = 0;
  void* released = nullptr;
  const std::int64_t before = in_use(Purpose::gathered);
  {
    const Buffer buffer(&block, sizeof(block), Device{}, Purpose::gathered,
                        [&](void* data, std::size_t bytes) {
                          released = data;
                          EXPECT_EQ(bytes, sizeof(block));
                        });
    EXPECT_EQ(in_use(Purpose::gathered), before + 4);
  }
  EXPECT_EQ(released, &block);
  EXPECT_EQ(in_use(Purpose::gathered), before);
}

TEST(Buffer, TooLargeNamesSizePurposeAndWhatIsInUse) {
  for (const std::size_t bytes : {std::size_t{1} << 60, std::numeric_limits<std::size_t>::max(),
                                  std::numeric_limits<std::size_t>::max() / 2 + 2}) {
    const std::int64_t before = memory_ledger(Device{}).current_total();
    try {
      allocate(bytes, Device{}, Purpose::optimizer);
      FAIL() << bytes << " bytes were allocated";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::out_of_memory);
      const std::string message = error.what();
      EXPECT_NE(message.find("for optimizer on cpu"), std::string::npos) << message;
      EXPECT_NE(message.find("activations"), std::string::npos) << "no table in: " << message;
    }
    EXPECT_EQ(memory_ledger(Device{}).current_total(), before);
  }
}

TEST(Buffer, DevicesThatAreNotThereAreRefused) {
  const Device none{DeviceType::cuda, 99};
  const Code expected = cuda_device_count() > 0 ? Code::invalid_argument : Code::not_supported;
  test::expect_error(expected, {"cuda:99"}, [&] { allocate(16, none, Purpose::workspace); });
}

}  // namespace
}  // namespace tessera
