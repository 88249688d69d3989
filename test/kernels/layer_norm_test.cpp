// SPDX-License-Identifier: Apache-2.0
// Layer normalisation against fp64, its gradients against finite differences.
#include "tessera/kernels/layer_norm.hpp"

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

namespace on_device = testing::on_device;
using testing::Doubles;
using testing::TypedArray;

constexpr double kEpsilon = 1e-5;

struct Size {
  std::int64_t rows, columns;
};
const Size kSizes[] = {{1, 1}, {3, 3}, {17, 65}, {65, 17}, {40, 768}};

Doubles reference(const Doubles& x, const Doubles& weight, const Doubles& bias) {
  const std::size_t columns = weight.size();
  Doubles y(x.size());
  for (std::size_t row = 0; row < x.size(); row += columns) {
    double mean = 0, variance = 0;
    for (std::size_t i = 0; i < columns; ++i) mean += x[row + i] / static_cast<double>(columns);
    for (std::size_t i = 0; i < columns; ++i)
      variance += (x[row + i] - mean) * (x[row + i] - mean) / static_cast<double>(columns);
    for (std::size_t i = 0; i < columns; ++i)
      y[row + i] = (x[row + i] - mean) / std::sqrt(variance + kEpsilon) * weight[i] + bias[i];
  }
  return y;
}

/// Inputs, statistics and outputs of one case.
struct Case {
  Case(DType type, Size size, double shift = 0)
      : rows(size.rows),
        columns(size.columns),
        dtype(type),
        x(shifted(type, rows * columns, shift)),
        weight(testing::random_array(type, columns, 2)),
        bias(testing::random_array(type, columns, 3)),
        dy(testing::random_array(type, rows * columns, 4)),
        y(type, x.size()),
        mean(static_cast<std::size_t>(rows)),
        rstd(static_cast<std::size_t>(rows)) {}

  static TypedArray shifted(DType type, std::int64_t count, double shift) {
    auto values = testing::random_doubles(count, 1);
    for (double& value : values) value += shift;
    return {type, values};
  }
  LayerNormForward forward_args() {
    return {.x = x.data(),
            .weight = weight.data(),
            .bias = bias.data(),
            .y = y.data(),
            .mean = mean.data(),
            .rstd = rstd.data(),
            .rows = rows,
            .columns = columns,
            .epsilon = static_cast<float>(kEpsilon),
            .dtype = dtype};
  }
  void forward() { on_device::layer_norm_forward(forward_args()); }
  LayerNormBackward backward_args(TypedArray& dx, TypedArray& dweight, TypedArray& dbias) {
    return {.dy = dy.data(),
            .x = x.data(),
            .weight = weight.data(),
            .mean = mean.data(),
            .rstd = rstd.data(),
            .dx = dx.data(),
            .dweight = dweight.data(),
            .dbias = dbias.data(),
            .gradient_type = dweight.dtype(),
            .accumulate = false,
            .rows = rows,
            .columns = columns,
            .dtype = dtype};
  }

  std::int64_t rows, columns;
  DType dtype;
  TypedArray x, weight, bias, dy, y;
  std::vector<float> mean, rstd;
};

class LayerNorm : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, LayerNorm, testing::kernel_types(), testing::type_name);

TEST_P(LayerNorm, ForwardMatches) {
  for (const Size size : kSizes) {
    Case c(GetParam(), size);
    c.forward();
    testing::expect_close(c.y, reference(c.x.values(), c.weight.values(), c.bias.values()));
  }
}

TEST_P(LayerNorm, WorksWithoutBiasAndStatistics) {
  Case c(GetParam(), {3, 65});
  on_device::layer_norm_forward({.x = c.x.data(),
                                 .weight = c.weight.data(),
                                 .bias = nullptr,
                                 .y = c.y.data(),
                                 .mean = nullptr,
                                 .rstd = nullptr,
                                 .rows = c.rows,
                                 .columns = c.columns,
                                 .epsilon = static_cast<float>(kEpsilon),
                                 .dtype = GetParam()});
  testing::expect_close(c.y, reference(c.x.values(), c.weight.values(), Doubles(65)));
}

TEST_P(LayerNorm, OfASumIsTheSumThenTheNormToTheBit) {
  for (const Size size : {Size{3, 3}, Size{17, 65}, Size{9, 768}, Size{2, 9000}})
    for (const bool in_place : {false, true}) {
      Case apart(GetParam(), size), together(GetParam(), size);
      const auto residual = testing::random_array(GetParam(), size.rows * size.columns, 5);
      TypedArray sum(GetParam(), residual.size());
      auto args = together.forward_args();
      args.residual = residual.data();
      args.sum = in_place ? together.x.data() : sum.data();
      on_device::layer_norm_forward(args);
      on_device::add(residual.data(), apart.x.data(), apart.x.data(), size.rows * size.columns,
                     GetParam());
      apart.forward();
      EXPECT_TRUE((in_place ? together.x : sum) == apart.x);
      EXPECT_TRUE(together.y == apart.y);
      EXPECT_TRUE(together.mean == apart.mean && together.rstd == apart.rstd);
    }
}

TEST(LayerNormAccuracy, MeanFarFromZero) {
  Case c(DType::fp32, {4, 768}, 100);
  c.forward();
  // x itself is rounded to 2^-17 here: that much of a unit is all that one can ask for.
  testing::expect_close(c.y, reference(c.x.values(), c.weight.values(), c.bias.values()), 10);
}

TEST(LayerNormAccuracy, LongRowsKeepSixDigits) {
  Case c(DType::fp32, {2, 4096});
  c.forward();
  testing::expect_close(c.y, reference(c.x.values(), c.weight.values(), c.bias.values()));
}

TEST_P(LayerNorm, GradientsMatchFiniteDifferences) {
  for (const Size size : {Size{1, 3}, Size{3, 17}, Size{5, 65}}) {
    Case c(GetParam(), size);
    c.forward();
    TypedArray dx(GetParam(), c.x.size()), dweight(DType::fp32, c.weight.size()), dbias = dweight;
    on_device::layer_norm_backward(c.backward_args(dx, dweight, dbias));
    const auto x = c.x.values(), weight = c.weight.values(), bias = c.bias.values();
    const auto dy = c.dy.values();
    const auto loss = [&](const Doubles& a, const Doubles& b, const Doubles& d) {
      return testing::dot(reference(a, b, d), dy);
    };
    const auto of_x = [&](const Doubles& v) { return loss(v, weight, bias); };
    const auto of_weight = [&](const Doubles& v) { return loss(x, v, bias); };
    const auto of_bias = [&](const Doubles& v) { return loss(x, weight, v); };
    testing::expect_close(dx, testing::numeric_gradient(of_x, x), 5, "dx");
    testing::expect_close(dweight, testing::numeric_gradient(of_weight, weight), 5, "dweight");
    testing::expect_close(dbias, testing::numeric_gradient(of_bias, bias), 5, "dbias");
  }
}

TEST_P(LayerNorm, BackwardAccumulates) {
  for (const DType gradient_type : {DType::fp32, GetParam()}) {
    Case c(GetParam(), {17, 65});
    c.forward();
    TypedArray dx(GetParam(), c.x.size()), dweight(gradient_type, c.weight.size()), dbias = dweight;
    on_device::layer_norm_backward(c.backward_args(dx, dweight, dbias));
    auto more_x = testing::random_array(GetParam(), c.rows * c.columns, 7);
    auto more_weight = testing::random_array(gradient_type, c.columns, 8), more_bias = more_weight;
    const auto sum = [](Doubles a, const Doubles& b) {
      for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
      return a;
    };
    const auto expected_x = sum(more_x.values(), dx.values());
    const auto expected_weight = sum(more_weight.values(), dweight.values());
    const auto expected_bias = sum(more_bias.values(), dbias.values());
    auto args = c.backward_args(more_x, more_weight, more_bias);
    args.accumulate = args.accumulate_dx = true;
    on_device::layer_norm_backward(args);
    testing::expect_close(more_x, expected_x, 2, "dx");
    testing::expect_close(more_weight, expected_weight, 2, "dweight");
    testing::expect_close(more_bias, expected_bias, 2, "dbias");
  }
}

TEST_P(LayerNorm, SameBitsForAnyThreadCount) {
  Case c(GetParam(), {300, 131});
  c.forward();
  TypedArray dx(GetParam(), c.x.size()), dweight(DType::fp32, c.weight.size()), dbias = dweight;
  auto dx1 = dx, dweight1 = dweight, dbias1 = dbias;
  on_device::layer_norm_backward(c.backward_args(dx, dweight, dbias));
  const testing::WithThreads one(1);
  on_device::layer_norm_backward(c.backward_args(dx1, dweight1, dbias1));
  EXPECT_TRUE(dx == dx1 && dweight == dweight1 && dbias == dbias1);
}

TEST_P(LayerNorm, ParameterGradientsAreOptional) {
  Case c(GetParam(), {5, 17});
  c.forward();
  TypedArray dx(GetParam(), c.x.size()), dweight(DType::fp32, c.weight.size()), dbias = dweight;
  on_device::layer_norm_backward(c.backward_args(dx, dweight, dbias));
  auto dx_only = testing::filled_array(GetParam(), c.rows * c.columns, 9);
  auto args = c.backward_args(dx_only, dweight, dbias);
  args.dweight = args.dbias = nullptr;
  on_device::layer_norm_backward(args);
  EXPECT_TRUE(dx == dx_only);
}

}  // namespace
}  // namespace tessera::kernels
