// SPDX-License-Identifier: Apache-2.0
// Datasets beyond 4 GiB and transfers beyond 2 GiB for real. Needs 5 GB of disk and of memory, so
// it runs only when TESSERA_LARGE_TESTS is set.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include <gtest/gtest.h>

#include "tessera/checkpoint/checksum.hpp"

#include "base/transfer_limit.hpp"
#include "checkpoint/checkpoint_fixture.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t kBytes = 4'400'000'003;
constexpr std::int64_t kTail = 1000;

/// Elements [begin, begin + count) of the large dataset: eight bytes of each product.
void pattern(std::int64_t begin, std::int64_t count, std::uint8_t* out) {
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t at = begin + done;
    const std::uint64_t word = static_cast<std::uint64_t>(at / 8 + 1) * 0x9E3779B97F4A7C15u;
    const std::int64_t skipped = at % 8;
    const std::int64_t part = std::min(8 - skipped, count - done);
    std::memcpy(out + done, reinterpret_cast<const char*>(&word) + skipped,
                static_cast<std::size_t>(part));
    done += part;
  }
}

using LargeCheckpointTest = CheckpointTest;

TEST_F(LargeCheckpointTest, BeyondFourGigabytes) {
  if (std::getenv("TESSERA_LARGE_TESTS") == nullptr)
    GTEST_SKIP() << "set TESSERA_LARGE_TESTS for 5 GB of disk and memory";
  largest_transfer() = SIZE_MAX;  // so that the system's own limit is met
  const std::int64_t begin = kBytes / ranks() * rank();
  const std::int64_t end = rank() + 1 == ranks() ? kBytes : kBytes / ranks() * (rank() + 1);
  TensorRecord large{"parameters/large", Shape{kBytes}, DType::uint8, {}};
  Piece piece{begin, end - begin, nullptr, {}};
  piece.fill = [begin](std::int64_t offset, std::int64_t count, void* target) {
    pattern(begin + offset, count, static_cast<std::uint8_t*>(target));
  };
  large.pieces.push_back(piece);
  std::vector<float> values(static_cast<std::size_t>(kTail));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) + 0.5f;
  TensorRecord tail{"parameters/tail", Shape{kTail}, DType::fp32, {}};
  if (rank() == 0) tail.pieces.push_back({0, kTail, values.data(), {}});
  WriteOptions options;
  options.staging_bytes = 2'300'000'000;
  const WriteReport report =
      save(world(), path_, test_header(), {large, tail}, test_state(), options);
  EXPECT_EQ(world().all_reduce_scalar(report.bytes, Reduction::sum), kBytes + 4 * kTail);
  EXPECT_LT(report.writes, 20);

  const Reader reader(world(), path_);
  EXPECT_GT(reader.dataset("parameters/tail").offset, std::int64_t{1} << 32);
  std::vector<std::uint8_t> found(2'200'000'000 / static_cast<std::size_t>(ranks()) + 1000);
  std::vector<std::uint8_t> expected(1000);
  const auto expect_at = [&](std::int64_t at, const std::uint8_t* bytes) {
    pattern(at, 1000, expected.data());
    EXPECT_EQ(std::memcmp(bytes, expected.data(), 1000), 0) << at;
  };
  for (const std::int64_t middle : {std::int64_t{1} << 31, std::int64_t{1} << 32, kBytes - 500}) {
    reader.read("parameters/large", middle - 500, 1000, DType::uint8, found.data());
    expect_at(middle - 500, found.data());
  }
  const auto count = static_cast<std::int64_t>(found.size());
  reader.read("parameters/large", kBytes - count, count, DType::uint8, found.data());
  expect_at(kBytes - count, found.data());
  expect_at(kBytes - 1000, found.data() + count - 1000);
  std::vector<float> tail_found(values.size());
  reader.read("parameters/tail", 0, kTail, DType::fp32, tail_found.data());
  EXPECT_EQ(tail_found, values);
  EXPECT_TRUE(reader.verify(world()).empty());
  // Of one part beyond 2^32, by hand.
  std::uint64_t sum = 0;
  for (std::int64_t at = 0; at < kBytes; at += count) {
    const std::int64_t part = std::min(count, kBytes - at);
    if (at / count % ranks() != rank()) continue;
    pattern(at, part, found.data());
    sum += checksum_range("large", at, found.data(), DType::uint8, part);
  }
  std::uint64_t total = 0;
  for (const std::string& text : world().all_gather_text(std::to_string(sum)))
    total += std::stoull(text);
  EXPECT_EQ(total, reader.dataset("parameters/large").checksum);
}

}  // namespace
}  // namespace tessera::checkpoint
