// SPDX-License-Identifier: Apache-2.0
// Copies of pieces that lie apart, against loops over indices.
#include "tessera/kernels/copy_blocks.hpp"

#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

struct Case {
  std::int64_t blocks, rows, count;
  BlockStrides from, to;
};

template <typename T>
void expect_copied(const Case& c, DType dtype) {
  const auto size = [&](const BlockStrides& s) {
    return static_cast<std::size_t>((c.blocks - 1) * s.block + (c.rows - 1) * s.row + c.count);
  };
  std::vector<T> source(size(c.from)), target(size(c.to), T{7}), expected = target;
  std::iota(source.begin(), source.end(), T{100});
  for (std::int64_t b = 0; b < c.blocks; ++b)
    for (std::int64_t r = 0; r < c.rows; ++r)
      for (std::int64_t i = 0; i < c.count; ++i)
        expected[static_cast<std::size_t>(b * c.to.block + r * c.to.row + i)] =
            source[static_cast<std::size_t>(b * c.from.block + r * c.from.row + i)];
  testing::on_device::copy_blocks(
      {source.data(), target.data(), c.blocks, c.rows, c.count, c.from, c.to, dtype});
  EXPECT_EQ(target, expected);
}

TEST(CopyBlocks, MovesPiecesAndNothingElse) {
  for (const Case& c : {Case{1, 1, 5, {}, {}}, Case{3, 2, 4, {40, 16}, {8, 4}},
                        Case{2, 5, 3, {100, 7}, {31, 5}}, Case{4, 3, 16, {64, 16}, {96, 32}},
                        Case{1, 700, 64, {0, 192}, {0, 64}}, Case{5, 3, 1, {1, 5}, {3, 1}}}) {
    expect_copied<std::int32_t>(c, DType::int32);
    expect_copied<std::uint16_t>(c, DType::bf16);
    expect_copied<double>(c, DType::fp64);
  }
}

}  // namespace
}  // namespace tessera::kernels
