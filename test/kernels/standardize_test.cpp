// SPDX-License-Identifier: Apache-2.0
// Scaling of columns against the formula in fp64, and back.
#include "tessera/kernels/standardize.hpp"

#include <cstdint>
#include <vector>

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

struct Case {
  std::int64_t rows, columns, shift;  // the arrays begin at that element: aligned or not
};

TEST(Standardize, IsTheFormulaRoundedOnceAndItsInverse) {
  for (const Case& c :
       {Case{0, 3, 0}, {1, 1, 0}, {5, 3, 0}, {17, 4, 0}, {65, 17, 1}, {700, 65, 3}}) {
    const std::int64_t count = c.rows * c.columns;
    auto x = testing::random_array(DType::fp32, c.shift + count, 1);
    auto y = testing::filled_array(DType::fp32, c.shift + count, 7), back = y;
    std::vector<double> mean, deviation;
    for (std::int64_t i = 0; i < c.columns; ++i) {
      mean.push_back(1000.0 / static_cast<double>(i + 3));
      deviation.push_back(0.01 * static_cast<double>(i + 1));
    }
    Standardize args{.x = x.as<float>() + c.shift,
                     .y = y.as<float>() + c.shift,
                     .mean = mean.data(),
                     .deviation = deviation.data(),
                     .rows = c.rows,
                     .columns = c.columns};
    testing::on_device::standardize(args);
    args.x = args.y;
    args.y = back.as<float>() + c.shift;
    args.inverse = true;
    testing::on_device::standardize(args);
    for (std::int64_t i = 0; i < count; ++i) {
      const auto column = static_cast<std::size_t>(i % c.columns);
      const auto at = static_cast<double>(x.as<float>()[c.shift + i]);
      const float scaled = y.as<float>()[c.shift + i];
      EXPECT_EQ(scaled, static_cast<float>((at - mean[column]) / deviation[column]));
      EXPECT_EQ(back.as<float>()[c.shift + i],
                static_cast<float>(static_cast<double>(scaled) * deviation[column] + mean[column]));
    }
  }
}

}  // namespace
}  // namespace tessera::kernels
