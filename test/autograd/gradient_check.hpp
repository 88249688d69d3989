// SPDX-License-Identifier: Apache-2.0
// Compares gradients from the tape with central differences.
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/autograd/tape.hpp"
#include "tessera/autograd/weight.hpp"
#include "tessera/base/random.hpp"

namespace tessera::autograd {

inline Tensor random_tensor(Shape shape, std::uint64_t stream, float deviation = 1) {
  Tensor tensor(std::move(shape), DType::fp32);
  const RandomStream random(17, stream);
  for (std::int64_t i = 0; i < tensor.numel(); ++i)
    tensor.as<float>()[i] = deviation * random.normal(static_cast<std::uint64_t>(i));
  return tensor;
}

/// With room for its gradient, filled with rubbish that must be overwritten.
inline Weight random_weight(Shape shape, std::uint64_t stream, float deviation = 1) {
  Weight weight;
  weight.value = random_tensor(shape, stream, deviation);
  weight.gradient = random_tensor(std::move(shape), stream + 1000);
  return weight;
}

inline std::vector<float> to_vector(const Tensor& tensor) {
  return {tensor.as<float>(), tensor.as<float>() + tensor.numel()};
}

/// `function` maps values (leaves over `inputs`) to a value y; the objective is sum(y * r) with a
/// fixed random r. Checks the gradient of every element of `inputs` and `weights`.
class GradientCheck {
 public:
  using Function = std::function<Value(Tape&, const std::vector<Value>&)>;

  GradientCheck(Function function, std::vector<Tensor> inputs, std::vector<Weight*> weights)
      : function_(std::move(function)), inputs_(std::move(inputs)), weights_(std::move(weights)) {}

  void run(float step = 1e-2f, double tolerance = 5e-3) {
    Tape tape(Recording::on);
    std::vector<Value> leaves;
    for (const Tensor& input : inputs_) leaves.push_back(Value::leaf(input));
    const Value y = function_(tape, leaves);
    factors_ = random_tensor(y.shape(), 99);
    tape.backward(y, factors_.clone());
    EXPECT_EQ(tape.size(), 0u);
    for (std::size_t i = 0; i < inputs_.size(); ++i)
      compare("input " + std::to_string(i), inputs_[i], leaves[i].gradient(), step, tolerance);
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      EXPECT_TRUE(weights_[i]->gradient_written);
      compare("weight " + std::to_string(i), weights_[i]->value, weights_[i]->gradient, step,
              tolerance);
    }
  }

 private:
  double objective() {
    Tape tape(Recording::off);
    std::vector<Value> values(inputs_.begin(), inputs_.end());
    const Value y = function_(tape, values);
    double sum = 0;
    for (std::int64_t i = 0; i < y.data().numel(); ++i)
      sum += static_cast<double>(y.data().as<float>()[i]) *
             static_cast<double>(factors_.as<float>()[i]);
    return sum;
  }

  void compare(const std::string& what, const Tensor& point, const Tensor& gradient, float step,
               double tolerance) {
    ASSERT_TRUE(gradient) << what;
    ASSERT_EQ(gradient.numel(), point.numel()) << what;
    double largest = 1e-3;
    for (const float g : to_vector(gradient))
      largest = std::max(largest, std::fabs(static_cast<double>(g)));
    for (std::int64_t i = 0; i < point.numel(); ++i) {
      float& element = point.as<float>()[i];
      const float before = element;
      element = before + step;
      const double up = objective();
      const double width_up = static_cast<double>(element);
      element = before - step;
      const double down = objective();
      const double difference = (up - down) / (width_up - static_cast<double>(element));
      element = before;
      EXPECT_NEAR(gradient.as<float>()[i], difference, tolerance * largest)
          << what << " element " << i;
    }
  }

  Function function_;
  std::vector<Tensor> inputs_;
  std::vector<Weight*> weights_;
  Tensor factors_;
};

}  // namespace tessera::autograd
