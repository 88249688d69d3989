// SPDX-License-Identifier: Apache-2.0
// Keys and values appended to a cache lie where a plain loop puts them; the rest of it stays.
#include "tessera/kernels/kv_cache.hpp"

#include <gtest/gtest.h>

#include "support/expect_error.hpp"
#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

using namespace tessera::testing;

/// A fused product [rows, count, 3 * width + pad], whose second and third parts are taken.
struct Problem {
  std::int64_t rows, count, width, pad, capacity, length;
  std::int64_t stride() const { return 3 * width + pad; }
};

Doubles reference(const Problem& p, const Doubles& fused, std::int64_t part, Doubles cache) {
  for (std::int64_t r = 0; r < p.rows; ++r)
    for (std::int64_t t = 0; t < p.count; ++t)
      for (std::int64_t i = 0; i < p.width; ++i)
        cache[static_cast<std::size_t>((r * p.capacity + p.length + t) * p.width + i)] =
            fused[static_cast<std::size_t>((r * p.count + t) * p.stride() + part * p.width + i)];
  return cache;
}

class KvAppendTest : public ::testing::TestWithParam<DType> {
 protected:
  void expect_reference(const Problem& p) {
    const DType dtype = GetParam();
    auto fused = random_array(dtype, p.rows * p.count * p.stride(), 1);
    auto keys = random_array(dtype, p.rows * p.capacity * p.width, 2);
    auto values = random_array(dtype, p.rows * p.capacity * p.width, 3);
    const Doubles expected_keys = reference(p, fused.values(), 1, keys.values());
    const Doubles expected_values = reference(p, fused.values(), 2, values.values());
    const auto part = [&](std::int64_t i) {
      return static_cast<std::byte*>(fused.data()) +
             static_cast<std::size_t>(i * p.width) * size_of(dtype);
    };
    on_device::kv_append({.keys = part(1),
                          .values = part(2),
                          .cached_keys = keys.data(),
                          .cached_values = values.data(),
                          .rows = p.rows,
                          .count = p.count,
                          .width = p.width,
                          .stride = p.stride(),
                          .capacity = p.capacity,
                          .length = p.length,
                          .dtype = dtype});
    EXPECT_EQ(keys.values(), expected_keys) << p.rows << ' ' << p.count << ' ' << p.width;
    EXPECT_EQ(values.values(), expected_values) << p.rows << ' ' << p.count << ' ' << p.width;
  }
};

TEST_P(KvAppendTest, PutsPositionsBehindTheCachedOnes) {
  for (const std::int64_t width : {1, 3, 17, 64, 65, 768})
    for (const std::int64_t rows : {1, 3})
      for (const std::int64_t count : {1, 5}) {
        expect_reference({rows, count, width, 0, 9, 0});
        expect_reference({rows, count, width, 0, 9, 9 - count});
        expect_reference({rows, count, width, 5, 9, 2});
      }
}

TEST_P(KvAppendTest, TakesNothing) {
  expect_reference({2, 0, 8, 0, 3, 3});
  expect_reference({0, 1, 8, 0, 3, 0});
}

INSTANTIATE_TEST_SUITE_P(Types, KvAppendTest,
                         ::testing::Values(DType::fp32, DType::bf16, DType::fp16), type_name);

TEST(KvAppend, RefusesWhatDoesNotFit) {
  KvAppend args{};
  args.rows = args.width = args.stride = 1;
  args.capacity = 4;
  args.length = 3;
  args.count = 2;
  args.dtype = DType::fp32;
  test::expect_error(Code::invalid_argument, {"2 positions after 3 do not fit a cache of 4"},
                     [&] { kv_append(Stream(), args); });
}

}  // namespace
}  // namespace tessera::kernels
