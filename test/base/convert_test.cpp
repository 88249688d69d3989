// SPDX-License-Identifier: Apache-2.0
// Array conversions on every instruction set of this machine, bit for bit against the scalar ones.
#include <array>
#include <cstring>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>
#include <hwy/highway.h>

#include "tessera/base/dtype.hpp"
#include "tessera/base/error.hpp"

#include "base/float_samples.hpp"

namespace tessera {
namespace {

template <typename T>
float widen(T value) {
  if constexpr (std::is_same_v<T, float>)
    return value;
  else
    return value.to_float();
}

template <typename T>
T narrow(float value) {
  if constexpr (std::is_same_v<T, float>)
    return value;
  else
    return T::from_float(value);
}

template <typename Source, typename Target>
void expect_like_scalar(const std::vector<Source>& source) {
  std::vector<Target> target(source.size());
  convert(source.data(), dtype_of<Source>, target.data(), dtype_of<Target>, source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    const Target expected = narrow<Target>(widen(source[i]));
    ASSERT_EQ(std::memcmp(&target[i], &expected, sizeof(Target)), 0)
        << "element " << i << ", value " << widen(source[i]);
  }
}

template <typename Half>
std::vector<Half> all_halves() {
  std::vector<Half> values(0x10000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i].bits = static_cast<std::uint16_t>(i);
  return values;
}

// Runs `body` once for each instruction set that this processor has.
template <typename Body>
void on_every_target(Body body) {
  for (const auto target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    SCOPED_TRACE(hwy::TargetName(target));
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
}

TEST(Convert, EveryBf16) {
  on_every_target([] {
    expect_like_scalar<bf16, float>(all_halves<bf16>());
    expect_like_scalar<bf16, fp16>(all_halves<bf16>());
  });
}

TEST(Convert, EveryFp16) {
  on_every_target([] {
    expect_like_scalar<fp16, float>(all_halves<fp16>());
    expect_like_scalar<fp16, bf16>(all_halves<fp16>());
  });
}

TEST(Convert, FloatsAtEveryTie) {
  const auto samples = float_samples();
  on_every_target([&] {
    expect_like_scalar<float, bf16>(samples);
    expect_like_scalar<float, fp16>(samples);
  });
}

TEST(Convert, OddLengthsTouchNothingBehindTheEnd) {
  std::vector<float> source(67);
  std::iota(source.begin(), source.end(), -33.3f);
  on_every_target([&] {
    for (const std::size_t count : {0u, 1u, 3u, 17u, 65u}) {
      std::vector<bf16> target(67, bf16{0xabcd});
      convert(source.data(), DType::fp32, target.data(), DType::bf16, count);
      for (std::size_t i = 0; i < target.size(); ++i)
        ASSERT_EQ(target[i].bits, i < count ? bf16::from_float(source[i]).bits : 0xabcd)
            << "element " << i << " of " << count;
    }
  });
}

TEST(Convert, ResultDoesNotDependOnWhereASliceStarts) {
  const auto samples = float_samples();
  const std::vector<float> source(samples.begin() + 1000, samples.begin() + 1200);
  std::vector<fp16> whole(source.size());
  convert(source.data(), DType::fp32, whole.data(), DType::fp16, source.size());
  for (std::size_t start = 0; start < source.size(); ++start) {
    std::vector<fp16> part(source.size() - start);
    convert(source.data() + start, DType::fp32, part.data(), DType::fp16, part.size());
    ASSERT_EQ(std::memcmp(part.data(), whole.data() + start, part.size() * 2), 0) << start;
  }
}

TEST(Convert, DoubleToAndFromEveryFloat) {
  const std::array<double, 5> source = {0.0, -1.5, 3.14159265358979, 1e300, -1e-300};
  std::array<float, 5> single{};
  convert(source.data(), DType::fp64, single.data(), DType::fp32, source.size());
  for (std::size_t i = 0; i < source.size(); ++i)
    EXPECT_EQ(single[i], static_cast<float>(source[i]));
  std::array<bf16, 5> half{};
  convert(source.data(), DType::fp64, half.data(), DType::bf16, source.size());
  for (std::size_t i = 0; i < source.size(); ++i)
    EXPECT_EQ(half[i].bits, bf16::from_float(single[i]).bits);
  std::array<double, 5> back{};
  convert(half.data(), DType::bf16, back.data(), DType::fp64, source.size());
  for (std::size_t i = 0; i < source.size(); ++i)
    EXPECT_EQ(back[i], static_cast<double>(half[i].to_float()));
}

TEST(Convert, EqualTypesCopyEvenWhenTheyOverlap) {
  std::array<std::int64_t, 6> values = {1, 2, 3, 4, 5, 6};
  convert(values.data(), DType::int64, values.data() + 1, DType::int64, 5);
  EXPECT_EQ(values, (std::array<std::int64_t, 6>{1, 1, 2, 3, 4, 5}));
}

TEST(Convert, RefusesIntegersToFloats) {
  std::int32_t integer = 1;
  float target = 0;
  EXPECT_THROW(convert(&integer, DType::int32, &target, DType::fp32, 1), Error);
}

}  // namespace
}  // namespace tessera
