// SPDX-License-Identifier: Apache-2.0
// Right kernels give right results under every schedule; each missing barrier is found by some.
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "emulation/device_data.hpp"
#include "emulation/emulation.hpp"
#include "emulation/kernels.hpp"

namespace tessera::emulation_test {
namespace {

constexpr std::uint64_t kSeeds = 30;

std::vector<float> some_floats(std::size_t n) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) {
    values[i] = static_cast<float>((i * 37 + i / 7) % 101) / 50.0f - 1.0f;
  }
  return values;
}

// Seeds under which `right` does not hold.
std::size_t failures(const std::function<bool()>& right) {
  std::size_t failed = 0;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    emulation::set_seed(seed);
    failed += !right();
  }
  emulation::set_seed(0);
  return failed;
}

bool close(const std::vector<float>& a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= 1e-4f * (1.0f + std::abs(b[i])))) {
      return false;
    }
  }
  return a.size() == b.size();
}

class Normalize : public testing::TestWithParam<int> {};

TEST_P(Normalize, FindsEachMissingBarrier) {
  constexpr std::size_t kRows = 5, kColumns = 300;
  const auto input = some_floats(kRows * kColumns);
  std::vector<float> expected(input.size());
  for (std::size_t r = 0; r < kRows; ++r) {
    double sum = 0.0, squares = 0.0;
    for (std::size_t c = 0; c < kColumns; ++c) {
      sum += double{input[r * kColumns + c]};
    }
    const double mean = sum / kColumns;
    for (std::size_t c = 0; c < kColumns; ++c) {
      squares += std::pow(double{input[r * kColumns + c]} - mean, 2);
    }
    for (std::size_t c = 0; c < kColumns; ++c) {
      expected[r * kColumns + c] = static_cast<float>((double{input[r * kColumns + c]} - mean) /
                                                      std::sqrt(squares / kColumns));
    }
  }
  const TestStream stream;
  const DeviceArray<float> source(input);
  const std::size_t failed = failures([&] {
    const DeviceArray<float> target(input.size());
    normalize_rows(stream, source.data(), target.data(), kRows, kColumns, GetParam());
    return close(target.read(stream), expected);
  });
  if (GetParam() == 0) {
    EXPECT_EQ(failed, 0u);
  } else {
    EXPECT_GT(failed, kSeeds / 4);
  }
}
INSTANTIATE_TEST_SUITE_P(Missing, Normalize, testing::Range(0, kNormalizeBarriers + 1));

class Multiply : public testing::TestWithParam<int> {};

TEST_P(Multiply, FindsEachMissingBarrier) {
  constexpr std::size_t kSize = 64;
  const auto a = some_floats(kSize * kSize);
  std::vector<float> b = some_floats(kSize * kSize + 3);
  b.erase(b.begin(), b.begin() + 3);
  std::vector<float> expected(kSize * kSize);
  for (std::size_t i = 0; i < kSize; ++i) {
    for (std::size_t j = 0; j < kSize; ++j) {
      for (std::size_t k = 0; k < kSize; ++k) {
        expected[i * kSize + j] += a[i * kSize + k] * b[k * kSize + j];
      }
    }
  }
  const TestStream stream;
  const DeviceArray<float> device_a(a), device_b(b);
  const std::size_t failed = failures([&] {
    const DeviceArray<float> c(expected.size());
    multiply(stream, device_a.data(), device_b.data(), c.data(), kSize, GetParam());
    return close(c.read(stream), expected);
  });
  EXPECT_EQ(failed, GetParam() == 0 ? 0 : kSeeds);
}
INSTANTIATE_TEST_SUITE_P(Missing, Multiply, testing::Range(0, kMultiplyBarriers + 1));

class SumWarps : public testing::TestWithParam<int> {};

TEST_P(SumWarps, FindsEachMissingBarrier) {
  constexpr std::size_t kGroups = 6;
  std::vector<int> input(kGroups * 32);
  std::iota(input.begin(), input.end(), 1);
  std::vector<int> expected(kGroups);
  for (std::size_t i = 0; i < input.size(); ++i) {
    expected[i / 32] += input[i];
  }
  const TestStream stream;
  const DeviceArray<int> source(input);
  const std::size_t failed = failures([&] {
    const DeviceArray<int> target(kGroups);
    sum_warps(stream, source.data(), target.data(), kGroups, GetParam());
    return target.read(stream) == expected;
  });
  if (GetParam() == 0) {
    EXPECT_EQ(failed, 0u);
  } else {
    EXPECT_GT(failed, kSeeds / 4);
  }
}
INSTANTIATE_TEST_SUITE_P(Missing, SumWarps, testing::Range(0, kWarpBarriers + 1));

TEST(Executor, CountsByAtomics) {
  constexpr int kValues = 5000, kBins = 37;
  std::vector<std::uint32_t> values(kValues);
  std::vector<unsigned> expected(kBins);
  for (std::uint32_t i = 0; i < kValues; ++i) {
    values[i] = i * i * 7u;
    ++expected[values[i] % kBins];
  }
  const TestStream stream;
  const DeviceArray<std::uint32_t> source(values);
  EXPECT_EQ(failures([&] {
              const DeviceArray<unsigned> counts(std::vector<unsigned>(kBins, 0));
              histogram(stream, source.data(), counts.data(), kValues, kBins);
              return counts.read(stream) == expected;
            }),
            0u);
}

TEST(Executor, ShufflesAndVotesAsDefined) {
  const TestStream stream;
  const auto expect = [](int operation, int lane) {
    const int segment = lane / 8 * 8;
    switch (operation) {
      case 0:
        return 105;
      case 1:
        return 100 + (lane < 3 ? lane : lane - 3);
      case 2:
        return 100 + (lane > 28 ? lane : lane + 3);
      case 3:
        return 100 + (lane ^ 9);
      case 4:
        return 100 + segment + 5;
      case 5:
        return 100 + (lane - 3 < segment ? lane : lane - 3);
      case 6:
        return 100 + (lane + 3 >= segment + 8 ? lane : lane + 3);
      case 7:
        return static_cast<int>(0x49249249u);
      case 8:
        return 1;
      case 9:
        return 0;
      default:
        return lane < 16 ? 1600 + 120 : 1600 + 376;
    }
  };
  EXPECT_EQ(failures([&] {
              const DeviceArray<int> output(kWarpResults * 32);
              warp_operations(stream, output.data());
              const auto results = output.read(stream);
              for (int i = 0; i < kWarpResults * 32; ++i) {
                if (results[static_cast<std::size_t>(i)] != expect(i / 32, i % 32)) {
                  ADD_FAILURE() << "operation " << i / 32 << ", lane " << i % 32 << ": "
                                << results[static_cast<std::size_t>(i)];
                  return false;
                }
              }
              return true;
            }),
            0u);
}

TEST(Executor, PoisonsSharedMemoryOfEachBlock) {
  const TestStream stream;
  const DeviceArray<float> output(3 * 128);
  read_unwritten(stream, output.data());
  for (const float value : output.read(stream)) {
    EXPECT_TRUE(std::isnan(value));
  }
}

struct WrongCase {
  Wrong how;
  std::string message;
};
class Divergence : public testing::TestWithParam<WrongCase> {};

TEST_P(Divergence, IsReportedWithKernelAndLine) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    emulation::set_seed(seed);
    const Faults faults;
    const TestStream stream;
    const DeviceArray<float> data(64);
    go_wrong(stream, GetParam().how, data.data());
    stream.synchronize();
    ASSERT_EQ(faults.all().size(), 1u) << faults.text();
    EXPECT_NE(faults.text().find("wrong_kernel, block (0,0,0), thread ("), std::string::npos)
        << faults.text();
    EXPECT_NE(faults.text().find(GetParam().message), std::string::npos) << faults.text();
  }
  emulation::set_seed(0);
}
INSTANTIATE_TEST_SUITE_P(
    All, Divergence,
    testing::Values(WrongCase{Wrong::divergent_barrier, "wait at the barrier at kernels.cu:"},
                    WrongCase{Wrong::barrier_and_warp, "threads wait for others"},
                    WrongCase{Wrong::lacking_lane, "lacks the calling lane"},
                    WrongCase{Wrong::different_shuffles, "different operations"},
                    WrongCase{Wrong::endless_wait, "kernels.cu:"},
                    WrongCase{Wrong::trap, "__trap()"}));

}  // namespace
}  // namespace tessera::emulation_test
