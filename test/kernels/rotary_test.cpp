// SPDX-License-Identifier: Apache-2.0
// Rotary positions against a plain fp64 loop; the inverse is the transposed map.
#include "tessera/kernels/rotary.hpp"

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

using namespace tessera::testing;

struct Problem {
  std::int64_t rows, heads, head_dim, rotary_dim, row_stride;
  std::vector<std::int32_t> positions = {};
  std::vector<float> frequencies = {};
};

Problem make_problem(std::int64_t rows, std::int64_t heads, std::int64_t head_dim,
                     std::int64_t rotary_dim, std::int64_t pad) {
  Problem p{rows, heads, head_dim, rotary_dim, heads * head_dim + pad};
  for (std::int64_t r = 0; r < rows; ++r)
    p.positions.push_back(static_cast<std::int32_t>(r * r * 37));
  for (std::int64_t i = 0; i < rotary_dim / 2; ++i)
    p.frequencies.push_back(
        std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(rotary_dim)));
  return p;
}

Doubles reference(const Problem& p, Doubles x, bool inverse) {
  for (std::int64_t r = 0; r < p.rows; ++r)
    for (std::int64_t h = 0; h < p.heads; ++h)
      for (std::int64_t i = 0; i < p.rotary_dim / 2; ++i) {
        const double angle = p.positions[static_cast<std::size_t>(r)] *
                             static_cast<double>(p.frequencies[static_cast<std::size_t>(i)]);
        const double c = std::cos(angle), s = inverse ? -std::sin(angle) : std::sin(angle);
        double& a = x[static_cast<std::size_t>(r * p.row_stride + h * p.head_dim + i)];
        double& b = *(&a + p.rotary_dim / 2);
        const double rotated = a * c - b * s;
        b = a * s + b * c;
        a = rotated;
      }
  return x;
}

void rotate(const Problem& p, TypedArray& x, bool inverse) {
  on_device::rotary({.x = x.data(),
                     .positions = p.positions.data(),
                     .inverse_frequency = p.frequencies.data(),
                     .rows = p.rows,
                     .heads = p.heads,
                     .head_dim = p.head_dim,
                     .rotary_dim = p.rotary_dim,
                     .row_stride = p.row_stride,
                     .inverse = inverse,
                     .dtype = x.dtype()});
}

class RotaryTest : public ::testing::TestWithParam<DType> {};

TEST_P(RotaryTest, BothDirections) {
  for (const std::int64_t head_dim : {2, 6, 34, 64, 130})
    for (const std::int64_t heads : {1, 3})
      for (const bool inverse : {false, true}) {
        const Problem p = make_problem(17, heads, head_dim, head_dim - head_dim % 4, 5);
        auto x = random_array(GetParam(), p.rows * p.row_stride, 1);
        const Doubles expected = reference(p, x.values(), inverse);
        rotate(p, x, inverse);
        expect_close(x, expected);
      }
}

TEST_P(RotaryTest, InverseRestores) {
  const Problem p = make_problem(65, 2, 32, 32, 0);
  auto x = random_array(GetParam(), p.rows * p.row_stride, 1);
  const Doubles before = x.values();
  rotate(p, x, false);
  rotate(p, x, true);
  expect_close(x, before, 2);
}

INSTANTIATE_TEST_SUITE_P(Types, RotaryTest, kernel_types(), type_name);

TEST(Rotary, RefusesOddDimensions) {
  Problem p = make_problem(1, 1, 8, 4, 0);
  p.rotary_dim = 3;
  auto x = random_array(DType::fp32, 8, 1);
  EXPECT_THROW(rotate(p, x, false), Error);
}

}  // namespace
}  // namespace tessera::kernels
