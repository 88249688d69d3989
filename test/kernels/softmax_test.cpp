// SPDX-License-Identifier: Apache-2.0
// Softmax against a plain fp64 loop, and its gradient against numeric differences.
#include "tessera/kernels/softmax.hpp"

#include <algorithm>

#include <gtest/gtest.h>

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

using namespace tessera::testing;

Doubles reference(const Doubles& x, std::size_t columns) {
  Doubles y(x.size());
  for (std::size_t begin = 0; begin < x.size(); begin += columns) {
    const double largest =
        *std::max_element(x.begin() + static_cast<std::ptrdiff_t>(begin),
                          x.begin() + static_cast<std::ptrdiff_t>(begin + columns));
    double sum = 0;
    for (std::size_t j = begin; j < begin + columns; ++j) sum += y[j] = std::exp(x[j] - largest);
    for (std::size_t j = begin; j < begin + columns; ++j) y[j] /= sum;
  }
  return y;
}

class SoftmaxTest : public ::testing::TestWithParam<DType> {};

TEST_P(SoftmaxTest, Forward) {
  for (const std::int64_t rows : {1, 3, 65})
    for (const std::int64_t columns : {1, 3, 17, 65, 5000}) {
      const auto x = random_array(GetParam(), rows * columns, 1, 4);
      TypedArray y(GetParam(), x.size());
      on_device::softmax_forward({x.data(), y.data(), rows, columns, GetParam()});
      expect_close(y, reference(x.values(), static_cast<std::size_t>(columns)), 2);
      auto in_place = x;
      on_device::softmax_forward({in_place.data(), in_place.data(), rows, columns, GetParam()});
      EXPECT_EQ(in_place, y);
    }
}

TEST_P(SoftmaxTest, Backward) {
  for (const std::int64_t columns : {1, 3, 17, 65}) {
    const std::int64_t rows = 3;
    const auto x = random_array(GetParam(), rows * columns, 1);
    const auto dy = random_array(GetParam(), rows * columns, 2);
    TypedArray y(GetParam(), x.size()), dx(GetParam(), x.size());
    on_device::softmax_forward({x.data(), y.data(), rows, columns, GetParam()});
    on_device::softmax_backward({dy.data(), y.data(), dx.data(), rows, columns, GetParam()});
    const auto expected = numeric_gradient(
        [&](const Doubles& at) {
          return dot(reference(at, static_cast<std::size_t>(columns)), dy.values());
        },
        x.values());
    if (columns == 1)
      for (const double value : dx.values()) EXPECT_NEAR(value, 0, 1e-6);
    else
      expect_close(dx, expected, 4);
    auto in_place = dy;
    on_device::softmax_backward(
        {in_place.data(), y.data(), in_place.data(), rows, columns, GetParam()});
    EXPECT_EQ(in_place, dx);
  }
}

TEST_P(SoftmaxTest, LargeInputsAndNan) {
  const std::int64_t columns = 20;
  const double large = large_number(GetParam()) / 2;
  auto x = filled_array(GetParam(), 2 * columns, -large);
  Doubles values = x.values();
  values[3] = large;
  values[25] = std::numeric_limits<double>::quiet_NaN();
  x = TypedArray(GetParam(), values);
  on_device::softmax_forward({x.data(), x.data(), 2, columns, GetParam()});
  const Doubles y = x.values();
  for (std::size_t j = 0; j < 20; ++j) {
    EXPECT_EQ(y[j], j == 3 ? 1 : 0);
    EXPECT_TRUE(std::isnan(y[20 + j]));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, SoftmaxTest, kernel_types(), type_name);

}  // namespace
}  // namespace tessera::kernels
