// SPDX-License-Identifier: Apache-2.0
// Activation functions and their slopes against fp64 formulas.
#include "tessera/kernels/activation.hpp"

#include <tuple>

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

namespace on_device = testing::on_device;
using testing::Doubles;
using testing::TypedArray;

double reference(Activation function, double x) {
  switch (function) {
    case Activation::gelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::gelu_tanh:
      return x / (1 + std::exp(-2 * std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::tanh:
      return std::tanh(x);
    default:
      return x > 0 ? x : 0;
  }
}

using Parameters = std::tuple<DType, Activation>;
class ActivationTest : public ::testing::TestWithParam<Parameters> {
 protected:
  DType dtype() const { return std::get<0>(GetParam()); }
  Activation function() const { return std::get<1>(GetParam()); }

  TypedArray forward(const TypedArray& x) const {
    auto y = testing::filled_array(dtype(), static_cast<std::int64_t>(x.size()), 77);
    on_device::activation_forward({.x = x.data(),
                                   .y = y.data(),
                                   .count = static_cast<std::int64_t>(x.size()),
                                   .function = function(),
                                   .dtype = dtype()});
    return y;
  }
  TypedArray backward(const TypedArray& x, TypedArray dy) const {
    on_device::activation_backward({.dy = dy.data(),
                                    .x = x.data(),
                                    .dx = dy.data(),
                                    .count = static_cast<std::int64_t>(x.size()),
                                    .function = function(),
                                    .dtype = dtype()});
    return dy;
  }
};
std::string parameters_name(const ::testing::TestParamInfo<Parameters>& parameters) {
  const char* names[] = {"gelu", "gelu_tanh", "silu", "relu", "tanh"};
  return std::string(to_string(std::get<0>(parameters.param))) + "_" +
         names[static_cast<int>(std::get<1>(parameters.param))];
}
INSTANTIATE_TEST_SUITE_P(
    All, ActivationTest,
    ::testing::Combine(testing::kernel_types(),
                       ::testing::Values(Activation::gelu, Activation::gelu_tanh, Activation::silu,
                                         Activation::relu, Activation::tanh)),
    parameters_name);

/// Dense over the range in which anything happens.
Doubles grid() {
  Doubles x;
  for (int i = -12000; i <= 12000; ++i) x.push_back(i / 1000.0);
  return x;
}

TEST_P(ActivationTest, EveryValueIsNearFp64) {
  const TypedArray x(dtype(), grid());
  const auto inputs = x.values(), y = forward(x).values();
  const double unit = dtype() == DType::fp32 ? 0x1p-24 : 0x1p-9;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double expected = reference(function(), inputs[i]);
    // A few roundings of the value itself; in the far left tail the exponent's rounding shows.
    EXPECT_NEAR(y[i], expected,
                8 * unit * std::abs(expected) + 0x1p-24 * std::min(1.0, std::abs(inputs[i])))
        << inputs[i];
  }
}

TEST_P(ActivationTest, SlopeIsTheDerivative) {
  const TypedArray x(dtype(), grid());
  const auto inputs = x.values();
  const auto slope = backward(x, testing::filled_array(dtype(), std::ssize(inputs), 1)).values();
  for (std::size_t i = 0; i < slope.size(); ++i) {
    if (function() == Activation::relu && inputs[i] == 0) {
      EXPECT_EQ(slope[i], 0);
      continue;
    }
    const double h = 1e-5;
    const double expected =
        (reference(function(), inputs[i] + h) - reference(function(), inputs[i] - h)) / (2 * h);
    EXPECT_NEAR(slope[i], expected, dtype() == DType::fp32 ? 1e-6 : 0x1p-8) << inputs[i];
  }
}

TEST_P(ActivationTest, OddSizesAndOffsetsGiveTheSameBits) {
  const auto x = testing::random_array(dtype(), 200, 5, 3),
             dy = testing::random_array(dtype(), 200, 6);
  const auto y = forward(x), dx = backward(x, dy);
  for (const std::size_t count : {1u, 3u, 17u, 65u}) {
    const auto at = [&](const TypedArray& a) {
      const Doubles values = a.values();
      return TypedArray(dtype(),
                        Doubles(values.begin() + 5, values.begin() + 5 + static_cast<int>(count)));
    };
    EXPECT_TRUE(forward(at(x)) == at(y)) << count;
    EXPECT_TRUE(backward(at(x), at(dy)) == at(dx)) << count;
  }
}

TEST_P(ActivationTest, ExtremeInputs) {
  const double infinity = std::numeric_limits<double>::infinity();
  const TypedArray x(dtype(), {1e4, -1e4, infinity, std::nan("")});
  const auto y = forward(x).values();
  EXPECT_TRUE(std::isnan(y[3]));
  if (function() == Activation::tanh) {
    EXPECT_EQ(Doubles(y.begin(), y.begin() + 3), (Doubles{1, -1, 1}));
    return;
  }
  EXPECT_NEAR(y[0] / x.values()[0], 1, 1e-6);
  EXPECT_NEAR(y[1], 0, 1e-30);
  EXPECT_EQ(y[2], infinity);
}

TEST_P(ActivationTest, GatesAnotherArray) {
  const std::int64_t count = 203;
  const auto gate = testing::random_array(dtype(), count, 5, 3);
  const auto up = testing::random_array(dtype(), count, 6, 3);
  const auto dy = testing::random_array(dtype(), count, 7, 3);
  auto y = testing::filled_array(dtype(), count, 77);
  on_device::gated_activation_forward({.gate = gate.data(),
                                       .up = up.data(),
                                       .y = y.data(),
                                       .count = count,
                                       .function = function(),
                                       .dtype = dtype()});
  // In place, as the tape does.
  auto dgate = gate, dup = up;
  on_device::gated_activation_backward({.dy = dy.data(),
                                        .gate = dgate.data(),
                                        .up = dup.data(),
                                        .dgate = dgate.data(),
                                        .dup = dup.data(),
                                        .count = count,
                                        .function = function(),
                                        .dtype = dtype()});
  const auto x = gate.values(), factor = up.values(), g = dy.values();
  const double unit = dtype() == DType::fp32 ? 0x1p-20 : 0x1p-8;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double h = 1e-5, value = reference(function(), x[i]);
    const double slope =
        (reference(function(), x[i] + h) - reference(function(), x[i] - h)) / (2 * h);
    EXPECT_NEAR(y.values()[i], value * factor[i], unit * (1 + std::abs(value * factor[i])));
    EXPECT_NEAR(dup.values()[i], g[i] * value, unit * (1 + std::abs(g[i] * value)));
    const double expected = g[i] * factor[i] * slope;
    EXPECT_NEAR(dgate.values()[i], expected, unit * (4 + std::abs(expected)));
  }
}

}  // namespace
}  // namespace tessera::kernels
