// SPDX-License-Identifier: Apache-2.0
// Numbers as text: exact both ways for machines, short for people.
#include "tessera/base/number_format.hpp"

#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/base/random.hpp"

#include "base/float_samples.hpp"
#include "support/expect_error.hpp"

namespace tessera {
namespace {

TEST(JsonNumber, ReadsBackToTheSameFloat) {
  for (const float value : float_samples()) {
    if (!std::isfinite(value)) continue;
    const float back = std::strtof(json_number(value).c_str(), nullptr);
    ASSERT_EQ(std::bit_cast<std::uint32_t>(back), std::bit_cast<std::uint32_t>(value)) << value;
  }
}

TEST(JsonNumber, ReadsBackToTheSameFloatThroughADouble) {
  // JSON readers keep doubles; narrowing what they read must give the float that was written.
  const RandomStream random(7, 1);
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const auto value = std::bit_cast<float>(random.bits(i));
    if (!std::isfinite(value)) continue;
    const auto back = static_cast<float>(std::strtod(json_number(value).c_str(), nullptr));
    ASSERT_EQ(back, value);
  }
}

TEST(JsonNumber, ReadsBackToTheSameDouble) {
  const RandomStream random(7, 2);
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const auto word = std::uint64_t{random.bits(2 * i)} << 32 | random.bits(2 * i + 1);
    const auto value = std::bit_cast<double>(word);
    if (!std::isfinite(value)) continue;
    const double back = std::strtod(json_number(value).c_str(), nullptr);
    ASSERT_EQ(std::bit_cast<std::uint64_t>(back), word) << value;
  }
}

TEST(JsonNumber, LooksLikeAFloatingNumber) {
  EXPECT_EQ(json_number(1.0), "1.0");
  EXPECT_EQ(json_number(-0.0), "-0.0");
  EXPECT_EQ(json_number(0.1f), "0.1");
  EXPECT_EQ(json_number(0.1), "0.1");
  EXPECT_EQ(json_number(1e300), "1e+300");
}

TEST(JsonNumber, WhatJsonCannotSayIsNull) {
  EXPECT_EQ(json_number(std::numeric_limits<double>::infinity()), "null");
  EXPECT_EQ(json_number(-std::numeric_limits<float>::infinity()), "null");
  EXPECT_EQ(json_number(std::numeric_limits<double>::quiet_NaN()), "null");
}

TEST(FormatBytes, PicksTheUnit) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(1048575), "1.0 MiB") << "never 1024.0 of a unit";
  EXPECT_EQ(format_bytes(3.0 * (1ull << 40)), "3.0 TiB");
  EXPECT_EQ(format_bytes(-2048), "-2.0 KiB");
}

TEST(ParseBytes, UnderstandsBothKindsOfUnits) {
  EXPECT_EQ(parse_bytes("0"), 0);
  EXPECT_EQ(parse_bytes("4096"), 4096);
  EXPECT_EQ(parse_bytes("12B"), 12);
  EXPECT_EQ(parse_bytes("200MB"), 200'000'000);
  EXPECT_EQ(parse_bytes("5GB"), 5'000'000'000);
  EXPECT_EQ(parse_bytes("5 gb"), 5'000'000'000);
  EXPECT_EQ(parse_bytes("1GiB"), 1 << 30);
  EXPECT_EQ(parse_bytes("1.5KiB"), 1536);
  EXPECT_EQ(parse_bytes("2T"), 2'000'000'000'000);
  for (const char* text :
       {"", "GB", "-1", "5XB", "5Gi5", "1e3", "5 G B", "nan", "inf", "99999999TB"})
    test::expect_error(Code::invalid_argument, {fmt::format("'{}'", text), "MiB"},
                       [&] { parse_bytes(text); });
}

TEST(FormatCount, PicksTheUnit) {
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(12345678), "12.3 M");
  EXPECT_EQ(format_count(999999), "1.0 M") << "never 1000.0 of a unit";
  EXPECT_EQ(format_count(7.2e11), "720.0 G");
}

TEST(FormatDuration, HoursOnlyWhereThereAreSome) {
  EXPECT_EQ(format_duration(0), "0:00");
  EXPECT_EQ(format_duration(83), "1:23");
  EXPECT_EQ(format_duration(59.6), "1:00");
  EXPECT_EQ(format_duration(3723), "1:02:03");
}

TEST(FormatDuration, UnknownTimeIsAQuestionMark) {
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::quiet_NaN()), "?");
}

}  // namespace
}  // namespace tessera
