// SPDX-License-Identifier: Apache-2.0
// A layer that somebody else computes, against central differences.
#include "tessera/autograd/given_layer.hpp"

#include <cmath>

#include <gtest/gtest.h>

#include "autograd/gradient_check.hpp"

namespace tessera::autograd {
namespace {

/// y = w0 x0^2 + w1 x1, sin(w1 x0): 2 inputs, 2 outputs, 2 parameters.
LayerFunctions physics() {
  LayerFunctions functions;
  functions.forward = [](const Tensor& x, const Tensor& w, const Tensor& y) {
    const float *a = x.as<float>(), *p = w.as<float>();
    for (std::int64_t r = 0; r < x.size(0); ++r, a += 2) {
      y.as<float>()[2 * r] = p[0] * a[0] * a[0] + p[1] * a[1];
      y.as<float>()[2 * r + 1] = std::sin(p[1] * a[0]);
    }
  };
  functions.backward = [](const Tensor& x, const Tensor& w, const Tensor& dy, const Tensor& dx,
                          const Tensor& dw) {
    const float *a = x.as<float>(), *p = w.as<float>(), *d = dy.as<float>();
    for (std::int64_t r = 0; r < x.size(0); ++r, a += 2, d += 2) {
      const float slope = d[1] * std::cos(p[1] * a[0]);
      dx.as<float>()[2 * r] = 2 * d[0] * p[0] * a[0] + slope * p[1];
      dx.as<float>()[2 * r + 1] = d[0] * p[1];
      dw.as<float>()[0] += d[0] * a[0] * a[0];
      dw.as<float>()[1] += d[0] * a[1] + slope * a[0];
    }
  };
  return functions;
}

TEST(GivenLayer, GradientsOfInputsAndParameters) {
  Weight weight = random_weight({2}, 5, 0.5f);
  const auto layer = [&](Tape& tape, const std::vector<Value>& inputs) {
    return given_layer(tape, inputs[0], &weight, 2, physics());
  };
  GradientCheck(layer, {random_tensor({5, 2}, 1, 0.5f)}, {&weight}).run();
}

TEST(GivenLayer, AddsToWhatIsThere) {
  Weight weight = random_weight({2}, 5, 0.5f);
  const Tensor x = random_tensor({5, 2}, 1), dy = random_tensor({5, 2}, 2);
  std::vector<float> once;
  for (const int times : {1, 2}) {
    Tape tape(Recording::on);
    tape.backward(given_layer(tape, Value(x), &weight, 2, physics()), dy.clone());
    if (times == 1) once = to_vector(weight.gradient);
  }
  for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(to_vector(weight.gradient)[i], 2 * once[i]);
}

TEST(GivenLayer, OfNoRowsHasZeroGradients) {
  Weight weight = random_weight({2}, 5);
  Tape tape(Recording::on);
  const Value y = given_layer(tape, Value(Tensor(Shape{0, 2}, DType::fp32)), &weight, 2, physics());
  tape.backward(y, Tensor(Shape{0, 2}, DType::fp32));
  EXPECT_EQ(to_vector(weight.gradient), std::vector<float>(2, 0.0f));
}

TEST(GivenLayer, ComputesInFp32ForOtherTypes) {
  Weight weight = random_weight({2}, 5, 0.5f), narrow;
  narrow.value = weight.value.to(DType::bf16);
  narrow.gradient = weight.gradient.to(DType::bf16);
  const Tensor x = random_tensor({5, 2}, 1);
  Tape tape(Recording::on);
  const Value leaf = Value::leaf(x.to(DType::bf16));
  const Value y = given_layer(tape, leaf, &narrow, 2, physics());
  EXPECT_EQ(y.data().dtype(), DType::bf16);
  tape.backward(y, random_tensor({5, 2}, 2).to(DType::bf16));
  EXPECT_EQ(leaf.gradient().dtype(), DType::bf16);
  Tape wide(Recording::on);
  weight.value = narrow.value.to(DType::fp32);
  const Value exact = given_layer(wide, Value(leaf.data().to(DType::fp32)), &weight, 2, physics());
  wide.backward(exact, random_tensor({5, 2}, 2).to(DType::bf16).to(DType::fp32));
  EXPECT_EQ(to_vector(narrow.gradient.to(DType::fp32)),
            to_vector(weight.gradient.to(DType::bf16).to(DType::fp32)));
}

}  // namespace
}  // namespace tessera::autograd
