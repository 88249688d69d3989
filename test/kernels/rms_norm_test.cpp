// SPDX-License-Identifier: Apache-2.0
// Root-mean-square normalisation against fp64, its gradients against finite differences.
#include "tessera/kernels/rms_norm.hpp"

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

namespace on_device = testing::on_device;
using testing::Doubles;
using testing::TypedArray;

constexpr double kEpsilon = 1e-6;

Doubles reference(const Doubles& x, const Doubles& weight) {
  const std::size_t columns = weight.size();
  Doubles y(x.size());
  for (std::size_t row = 0; row < x.size(); row += columns) {
    double square = 0;
    for (std::size_t i = 0; i < columns; ++i) square += x[row + i] * x[row + i];
    const double rstd = 1 / std::sqrt(square / static_cast<double>(columns) + kEpsilon);
    for (std::size_t i = 0; i < columns; ++i) y[row + i] = x[row + i] * rstd * weight[i];
  }
  return y;
}

/// Inputs and outputs of one case, after the forward pass.
struct Case {
  Case(DType type, std::int64_t row_count, std::int64_t column_count)
      : rows(row_count),
        columns(column_count),
        dtype(type),
        x(testing::random_array(type, rows * columns, 1)),
        weight(testing::random_array(type, columns, 2)),
        dy(testing::random_array(type, rows * columns, 3)),
        y(type, x.size()),
        rstd(static_cast<std::size_t>(rows)) {
    on_device::rms_norm_forward({.x = x.data(),
                                 .weight = weight.data(),
                                 .y = y.data(),
                                 .rstd = rstd.data(),
                                 .rows = rows,
                                 .columns = columns,
                                 .epsilon = static_cast<float>(kEpsilon),
                                 .dtype = dtype});
  }
  RmsNormBackward backward_args(TypedArray& dx, TypedArray& dweight) {
    return {.dy = dy.data(),
            .x = x.data(),
            .weight = weight.data(),
            .rstd = rstd.data(),
            .dx = dx.data(),
            .dweight = dweight.data(),
            .gradient_type = dweight.dtype(),
            .accumulate = false,
            .rows = rows,
            .columns = columns,
            .dtype = dtype};
  }

  std::int64_t rows, columns;
  DType dtype;
  TypedArray x, weight, dy, y;
  std::vector<float> rstd;
};

class RmsNorm : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, RmsNorm, testing::kernel_types(), testing::type_name);

TEST_P(RmsNorm, ForwardMatches) {
  for (const auto& [rows, columns] : {std::pair{1, 1}, {3, 3}, {17, 65}, {65, 17}, {40, 768}}) {
    const Case c(GetParam(), rows, columns);
    testing::expect_close(c.y, reference(c.x.values(), c.weight.values()));
  }
}

TEST_P(RmsNorm, GradientsMatchFiniteDifferences) {
  for (const auto& [rows, columns] : {std::pair{1, 1}, {1, 3}, {3, 17}, {5, 65}}) {
    Case c(GetParam(), rows, columns);
    TypedArray dx(GetParam(), c.x.size()), dweight(DType::fp32, c.weight.size());
    on_device::rms_norm_backward(c.backward_args(dx, dweight));
    const auto x = c.x.values(), weight = c.weight.values(), dy = c.dy.values();
    const auto of_x = [&](const Doubles& v) { return testing::dot(reference(v, weight), dy); };
    const auto of_weight = [&](const Doubles& v) { return testing::dot(reference(x, v), dy); };
    testing::expect_close(dweight, testing::numeric_gradient(of_weight, weight), 5, "dweight");
    // The gradient of a single column is zero but for epsilon: nothing to compare to.
    if (columns > 1) testing::expect_close(dx, testing::numeric_gradient(of_x, x), 5, "dx");
  }
}

TEST_P(RmsNorm, BackwardAccumulates) {
  for (const DType gradient_type : {DType::fp32, GetParam()}) {
    Case c(GetParam(), 17, 65);
    TypedArray dx(GetParam(), c.x.size()), dweight(gradient_type, c.weight.size());
    on_device::rms_norm_backward(c.backward_args(dx, dweight));
    auto more_x = testing::random_array(GetParam(), c.rows * c.columns, 7);
    auto more_weight = testing::random_array(gradient_type, c.columns, 8);
    const auto sum = [](Doubles a, const Doubles& b) {
      for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
      return a;
    };
    const auto expected_x = sum(more_x.values(), dx.values());
    const auto expected_weight = sum(more_weight.values(), dweight.values());
    auto args = c.backward_args(more_x, more_weight);
    args.accumulate = args.accumulate_dx = true;
    on_device::rms_norm_backward(args);
    testing::expect_close(more_x, expected_x, 2, "dx");
    testing::expect_close(more_weight, expected_weight, 2, "dweight");
  }
}

TEST_P(RmsNorm, SameBitsForAnyThreadCount) {
  Case c(GetParam(), 300, 131);
  TypedArray dx(GetParam(), c.x.size()), dweight(DType::fp32, c.weight.size());
  auto dx1 = dx, dweight1 = dweight;
  on_device::rms_norm_backward(c.backward_args(dx, dweight));
  const testing::WithThreads one(1);
  on_device::rms_norm_backward(c.backward_args(dx1, dweight1));
  EXPECT_TRUE(dx == dx1 && dweight == dweight1);
}

}  // namespace
}  // namespace tessera::kernels
