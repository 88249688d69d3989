// SPDX-License-Identifier: Apache-2.0
// Split masters: all 2^32 patterns, what the bf16 half shows, slices.
#include "tessera/kernels/split_master.hpp"

#include <bit>
#include <numeric>

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

namespace on_device = testing::on_device;

struct Split {
  explicit Split(const std::vector<float>& master) : high(master.size()), low(master.size()) {
    on_device::split(master.data(), high.data(), low.data(), std::ssize(master));
  }
  std::vector<float> joined() const {
    std::vector<float> master(high.size());
    on_device::join(high.data(), low.data(), master.data(), std::ssize(high));
    return master;
  }
  std::vector<bf16> high;
  std::vector<std::uint16_t> low;
};

/// Whether the patterns first … first + count - 1 survive. Small enough for the cache.
bool survives(std::uint32_t first, std::uint32_t count) {
  std::vector<std::uint32_t> bits(count), back(count);
  std::vector<bf16> high(count);
  std::vector<std::uint16_t> low(count);
  std::iota(bits.begin(), bits.end(), first);
  on_device::split(reinterpret_cast<const float*>(bits.data()), high.data(), low.data(), count);
  on_device::join(high.data(), low.data(), reinterpret_cast<float*>(back.data()), count);
  return bits == back;
}

TEST(SplitMaster, EveryPatternComesBack) {
  if (testing::on_cuda()) GTEST_SKIP() << "some of them are tried";
  constexpr int kBlockBits = 14;
  std::int64_t lost = 0;
#pragma omp parallel for reduction(+ : lost)
  for (std::int64_t block = 0; block < (std::int64_t{1} << (32 - kBlockBits)); ++block)
    lost += !survives(static_cast<std::uint32_t>(block << kBlockBits), 1u << kBlockBits);
  EXPECT_EQ(lost, 0);
}

TEST(SplitMaster, PatternsOfEverySignAndExponentComeBack) {
  for (std::uint32_t top = 0; top < 1024; ++top)
    EXPECT_TRUE(survives((top << 22) + 0x1fff80u, 256)) << top;
}

TEST(SplitMaster, HalfIsTheRoundedWeight) {
  const auto values = testing::random_doubles(10000, 1);
  std::vector<float> master(values.begin(), values.end());
  const Split pair(master);
  for (std::size_t i = 0; i < master.size(); ++i) {
    const bool tie = pair.low[i] == 0x8000;
    EXPECT_TRUE(tie || pair.high[i].bits == bf16::from_float(master[i]).bits) << master[i];
    EXPECT_EQ(pair.low[i], std::bit_cast<std::uint32_t>(master[i]) & 0xffffu);
  }
}

TEST(SplitMaster, TiesGoAwayFromZeroAndSpecialValuesStay) {
  const auto pattern = [](std::uint32_t bits) { return std::bit_cast<float>(bits); };
  const float infinity = std::numeric_limits<float>::infinity();
  const Split pair({pattern(0x3f808000), pattern(0xbf808000), infinity, -infinity, 0.0f, -0.0f,
                    std::numeric_limits<float>::quiet_NaN(), pattern(0x7f7fffff),
                    pattern(0x7f800001), pattern(0x7fffffff), pattern(0xffffffff)});
  const std::uint16_t expected[] = {0x3f81, 0xbf81, 0x7f80, 0xff80, 0,     0x8000,
                                    0x7fc0, 0x7f80, 0x7f80, 0x8000, 0x0000};
  for (std::size_t i = 0; i < pair.high.size(); ++i) EXPECT_EQ(pair.high[i].bits, expected[i]) << i;
}

TEST(SplitMaster, OddSizesAndOffsetsGiveTheSameBits) {
  const auto values = testing::random_doubles(200, 2);
  const std::vector<float> master(values.begin(), values.end());
  const Split whole(master);
  EXPECT_EQ(whole.joined(), master);
  for (const int count : {1, 3, 17, 65}) {
    const std::vector<float> part(master.begin() + 7, master.begin() + 7 + count);
    const Split cut(part);
    EXPECT_EQ(cut.joined(), part);
    for (std::size_t i = 0; i < part.size(); ++i) {
      EXPECT_EQ(cut.high[i].bits, whole.high[i + 7].bits);
      EXPECT_EQ(cut.low[i], whole.low[i + 7]);
    }
  }
}

}  // namespace
}  // namespace tessera::kernels
