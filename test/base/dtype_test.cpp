// SPDX-License-Identifier: Apache-2.0
// Element types, and the scalar 16-bit conversions against arithmetic in double.
#include "tessera/base/dtype.hpp"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

#include "base/float_samples.hpp"

namespace tessera {
namespace {

TEST(DType, SizesAndNames) {
  for (const auto& [dtype, bytes, name] :
       {std::tuple{DType::fp32, 4u, "fp32"}, std::tuple{DType::bf16, 2u, "bf16"},
        std::tuple{DType::fp16, 2u, "fp16"}, std::tuple{DType::fp64, 8u, "fp64"},
        std::tuple{DType::int32, 4u, "int32"}, std::tuple{DType::int64, 8u, "int64"},
        std::tuple{DType::uint8, 1u, "uint8"}}) {
    EXPECT_EQ(size_of(dtype), bytes) << name;
    EXPECT_STREQ(to_string(dtype), name);
    EXPECT_EQ(parse_dtype(name), dtype);
  }
  EXPECT_TRUE(is_floating(DType::bf16));
  EXPECT_TRUE(is_floating(DType::fp64));
  EXPECT_FALSE(is_floating(DType::int64));
  EXPECT_FALSE(is_floating(DType::uint8));
}

TEST(DType, KnowsOtherNames) {
  EXPECT_EQ(parse_dtype("bfloat16"), DType::bf16);
  EXPECT_EQ(parse_dtype("BF16"), DType::bf16);
  EXPECT_EQ(parse_dtype("half"), DType::fp16);
  EXPECT_EQ(parse_dtype("F32"), DType::fp32);
  EXPECT_EQ(parse_dtype("double"), DType::fp64);
}

TEST(DType, UnknownNameSaysWhatIsKnown) {
  try {
    parse_dtype("fp8");
    FAIL() << "fp8 was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::invalid_argument);
    EXPECT_NE(std::string(error.what()).find("'fp8'"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("bf16"), std::string::npos) << error.what();
  }
}

// The value of a 16-bit float with `mantissa_bits` bits of mantissa, by arithmetic.
double decode(std::uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = bits >> 15 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1)
    return mantissa ? std::numeric_limits<double>::quiet_NaN()
                    : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

// Nearest even by arithmetic: `nearbyint` of the value in units of its last place.
double round_nearest_even(double value, int exponent_bits, int mantissa_bits) {
  if (!std::isfinite(value) || value == 0) return value;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = std::max(std::ilogb(value), 1 - bias);
  const double unit = std::ldexp(1.0, exponent - mantissa_bits);
  const double rounded = std::nearbyint(value / unit) * unit;
  const double limit = std::ldexp(1.0, bias + 1);
  return std::abs(rounded) >= limit ? std::copysign(std::numeric_limits<double>::infinity(), value)
                                    : rounded;
}

template <typename Half>
void expect_exact_widening(int exponent_bits, int mantissa_bits) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto word = static_cast<std::uint16_t>(bits);
    const float value = Half{word}.to_float();
    const double truth = decode(word, exponent_bits, mantissa_bits);
    if (std::isnan(truth)) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_TRUE(std::isnan(Half::from_float(value).to_float())) << bits;
    } else {
      ASSERT_EQ(static_cast<double>(value), truth) << bits;
      ASSERT_EQ(std::signbit(value), std::signbit(truth)) << bits;
      ASSERT_EQ(Half::from_float(value).bits, word) << "widening then narrowing changed the bits";
    }
  }
}

template <typename Half>
void expect_nearest_even(int exponent_bits, int mantissa_bits) {
  for (const float value : float_samples()) {
    const Half half = Half::from_float(value);
    const double decoded = decode(half.bits, exponent_bits, mantissa_bits);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(decoded)) << std::bit_cast<std::uint32_t>(value);
    } else {
      ASSERT_EQ(decoded, round_nearest_even(value, exponent_bits, mantissa_bits))
          << "from " << value;
      ASSERT_EQ(std::signbit(decoded), std::signbit(value)) << "from " << value;
    }
  }
}

TEST(Bf16, WidensExactlyAndBack) {
  expect_exact_widening<bf16>(8, 7);
}
TEST(Fp16, WidensExactlyAndBack) {
  expect_exact_widening<fp16>(5, 10);
}
TEST(Bf16, RoundsToNearestEven) {
  expect_nearest_even<bf16>(8, 7);
}
TEST(Fp16, RoundsToNearestEven) {
  expect_nearest_even<fp16>(5, 10);
}

TEST(Bf16, KnownValues) {
  EXPECT_EQ(bf16::from_float(1.0f).bits, 0x3f80);
  EXPECT_EQ(bf16::from_float(1.0f + 0x1p-8f).bits, 0x3f80) << "a tie goes to the even neighbour";
  EXPECT_EQ(bf16::from_float(1.0f + 3 * 0x1p-8f).bits, 0x3f82);
  EXPECT_EQ(bf16::from_float(std::numeric_limits<float>::max()).bits, 0x7f80);
}

TEST(Fp16, KnownValues) {
  EXPECT_EQ(fp16::from_float(65504.0f).bits, 0x7bff);
  EXPECT_EQ(fp16::from_float(65519.996f).bits, 0x7bff);
  EXPECT_EQ(fp16::from_float(65520.0f).bits, 0x7c00);
  EXPECT_EQ(fp16::from_float(0x1p-24f).bits, 0x0001);
  EXPECT_EQ(fp16::from_float(0x1p-25f).bits, 0x0000) << "a tie goes to the even neighbour";
  EXPECT_EQ(fp16::from_float(-0.0f).bits, 0x8000);
}

}  // namespace
}  // namespace tessera
