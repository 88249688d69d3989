// SPDX-License-Identifier: Apache-2.0
// Block sums of squares to the bit, and finding the first non-finite element.
#include "tessera/kernels/reduce.hpp"

#include "tessera/base/shape.hpp"

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

namespace on_device = testing::on_device;
using testing::Doubles;
using testing::TypedArray;

class Reduce : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, Reduce, testing::kernel_types(), testing::type_name);

const std::int64_t kSizes[] = {0, 1, 3, 17, 65, 1024, 1025, 100001};

/// The definition of the header, literally.
Doubles definition(const Doubles& x) {
  Doubles sums;
  for (std::size_t block = 0; block < x.size(); block += kNormBlock) {
    double lanes[8] = {};
    for (std::size_t i = block; i < std::min(x.size(), block + kNormBlock); ++i)
      lanes[(i - block) % 8] += x[i] * x[i];
    double total = lanes[0];
    for (int lane = 1; lane < 8; ++lane) total += lanes[lane];
    sums.push_back(total);
  }
  return sums;
}

Doubles sums_of(const TypedArray& x) {
  const auto count = static_cast<std::int64_t>(x.size());
  Doubles sums(static_cast<std::size_t>(ceil_divide(count, kNormBlock)), -1);
  on_device::block_square_sums(x.data(), x.dtype(), count, sums.data());
  return sums;
}

TEST_P(Reduce, SquareSumsFollowTheDefinitionToTheBit) {
  for (const auto count : kSizes) {
    const auto x = testing::random_array(GetParam(), count, 1, 1e3);
    EXPECT_EQ(sums_of(x), definition(x.values())) << count;
  }
}

TEST_P(Reduce, NonFiniteShowsInItsBlockOnly) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double bad : {infinity, -infinity, std::nan("")}) {
    auto values = testing::random_doubles(5000, 2);
    values[3000] = bad;
    const auto sums = sums_of(TypedArray(GetParam(), values));
    for (std::size_t block = 0; block < sums.size(); ++block)
      EXPECT_EQ(std::isfinite(sums[block]), block != 2);
  }
}

TEST_P(Reduce, LargestNumbersDoNotOverflow) {
  const TypedArray x(GetParam(), Doubles(2000, testing::large_number(GetParam())));
  for (const double sum : sums_of(x)) EXPECT_TRUE(std::isfinite(sum));
}

TEST_P(Reduce, FirstNonFiniteIsFoundWhereverItIs) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const auto count : kSizes) {
    auto values = testing::random_doubles(count, 3);
    const auto find = [&] {
      return on_device::first_non_finite(TypedArray(GetParam(), values).data(), GetParam(), count);
    };
    EXPECT_EQ(find(), -1);
    for (std::int64_t at = count - 1; at >= 0; at /= 3) {
      values[static_cast<std::size_t>(at)] = at % 2 == 0 ? std::nan("") : -infinity;
      EXPECT_EQ(find(), at);
      if (at == 0) break;
    }
  }
}

}  // namespace
}  // namespace tessera::kernels
