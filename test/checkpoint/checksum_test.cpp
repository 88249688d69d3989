// SPDX-License-Identifier: Apache-2.0
// The checksum against its definition, and what it notices.
#include "tessera/checkpoint/checksum.hpp"

#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/random.hpp"

namespace tessera::checkpoint {
namespace {

/// doc/checkpoint-format.md word by word.
std::uint64_t by_definition(std::string_view name, std::uint64_t begin, const void* data,
                            std::size_t width, std::size_t count) {
  std::uint64_t n = 0xcbf29ce484222325u;
  for (const char c : name) n = (n ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::uint64_t w = 0;
    std::memcpy(&w, static_cast<const char*>(data) + i * width, width);
    std::uint64_t z = (n + (begin + i) * 0x9E3779B97F4A7C15u) ^ w;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    sum += z ^ (z >> 31);
  }
  return sum;
}

std::vector<std::uint32_t> random_words(std::size_t count) {
  const RandomStream random(1, 2);
  std::vector<std::uint32_t> words(count);
  for (std::size_t i = 0; i < count; ++i) words[i] = random.bits(i);
  return words;
}

TEST(Checksum, IsWhatItsDefinitionSays) {
  const auto words = random_words(4096);
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp16, DType::fp64, DType::int32,
                            DType::int64, DType::uint8})
    for (const std::int64_t count : {0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 1023, 1025, 2048})
      for (const std::int64_t begin : {std::int64_t{0}, std::int64_t{5}, std::int64_t{1} << 40})
        ASSERT_EQ(checksum_range("h.0.weight", begin, words.data(), dtype, count),
                  by_definition("h.0.weight", static_cast<std::uint64_t>(begin), words.data(),
                                size_of(dtype), static_cast<std::size_t>(count)))
            << to_string(dtype) << " " << count << " " << begin;
}

TEST(Checksum, PartsAddUpInAnyOrder) {
  const auto words = random_words(1000);
  const std::uint64_t whole = checksum_range("w", 0, words.data(), DType::fp32, 1000);
  std::uint64_t sum = checksum_range("w", 700, words.data() + 700, DType::fp32, 300);
  sum += checksum_range("w", 0, words.data(), DType::fp32, 1);
  sum += checksum_range("w", 1, words.data() + 1, DType::fp32, 699);
  EXPECT_EQ(sum, whole);
}

TEST(Checksum, NoticesEveryFlippedBitSwapAndTail) {
  auto words = random_words(257);
  const auto sum = [&](std::int64_t count) {
    return checksum_range("w", 0, words.data(), DType::fp32, count);
  };
  const std::uint64_t whole = sum(257);
  for (std::size_t i = 0; i < words.size(); i += 16)
    for (int bit = 0; bit < 32; ++bit) {
      words[i] ^= 1u << bit;
      ASSERT_NE(sum(257), whole);
      words[i] ^= 1u << bit;
    }
  std::swap(words[3], words[200]);
  EXPECT_NE(sum(257), whole);
  std::swap(words[3], words[200]);
  EXPECT_EQ(sum(257), whole);
  EXPECT_NE(sum(256), whole);
  EXPECT_NE(checksum_range("v", 0, words.data(), DType::fp32, 257), whole);
  EXPECT_NE(checksum_range("w", 1, words.data(), DType::fp32, 257), whole);
}

TEST(Checksum, NamesAndText) {
  EXPECT_EQ(checksum_name("parameters/h.0.weight"), "h.0.weight");
  EXPECT_EQ(checksum_name("optimizer/exp_avg/h.0.weight"), "optimizer/exp_avg/h.0.weight");
  EXPECT_EQ(format_checksum(0xab), "00000000000000ab");
}

// Files written by this version must verify for ever.
TEST(Checksum, ValuesAreFixed) {
  const float values[] = {0.0f, 1.0f, -2.5f};
  EXPECT_EQ(format_checksum(checksum_range("transformer.wte.weight", 0, values, DType::fp32, 3)),
            "5fb07b1687172828");
}

}  // namespace
}  // namespace tessera::checkpoint
