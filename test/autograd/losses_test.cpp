// SPDX-License-Identifier: Apache-2.0
// Losses of outputs: their gradients against central differences, and what they refuse.
#include "tessera/autograd/losses.hpp"

#include <cmath>
#include <functional>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

#include "autograd/gradient_check.hpp"

namespace tessera::autograd {
namespace {

using LossFunction = std::function<Loss(Tape&, const Value&, float scale)>;

/// d(scale * sum)/dx of every element of x.
void expect_gradient(const LossFunction& loss, Tensor x) {
  constexpr float kScale = 0.25f, kStep = 1e-2f;
  Tape tape(Recording::on);
  const Value leaf = Value::leaf(x);
  const Loss recorded = loss(tape, leaf, kScale);
  EXPECT_TRUE(recorded.known());
  tape.backward();
  ASSERT_TRUE(leaf.gradient());
  const auto value = [&] {
    Tape off(Recording::off);
    return loss(off, Value(x), kScale).sum();
  };
  EXPECT_EQ(recorded.sum(), value());
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    float& element = x.as<float>()[i];
    const float before = element;
    element = before + kStep;
    const double up = value();
    element = before - kStep;
    const double down = value();
    element = before;
    const double slope =
        static_cast<double>(kScale) * (up - down) / (2 * static_cast<double>(kStep));
    EXPECT_NEAR(leaf.gradient().as<float>()[i], slope, 2e-3) << i;
  }
}

TEST(ElementLoss, Gradients) {
  const Tensor targets = random_tensor(Shape{6, 3}, 2);
  using Kind = kernels::ElementLossKind;
  for (const Kind kind : {Kind::squared, Kind::absolute, Kind::huber})
    expect_gradient([&](Tape& tape, const Value& x,
                        float scale) { return element_loss(tape, x, targets, kind, 0.5f, scale); },
                    random_tensor(Shape{6, 3}, 1));
}

TEST(CrossEntropyLoss, Gradients) {
  Tensor targets(Shape{4}, DType::int32);
  const std::int32_t classes[] = {2, 0, -1, 4};
  std::copy_n(classes, 4, targets.as<std::int32_t>());
  expect_gradient([&](Tape& tape, const Value& x,
                      float scale) { return cross_entropy_loss(tape, x, targets, scale); },
                  random_tensor(Shape{4, 5}, 3));
}

TEST(Losses, RefuseWhatDoesNotFit) {
  Tape tape(Recording::off);
  const Value x(random_tensor(Shape{4, 5}, 3));
  using Kind = kernels::ElementLossKind;
  EXPECT_THROW(element_loss(tape, x, random_tensor(Shape{4, 4}, 1), Kind::squared, 1, 1), Error);
  const Tensor classes(Shape{4}, DType::int32);
  EXPECT_THROW(element_loss(tape, x, classes, Kind::squared, 1, 1), Error);
  EXPECT_THROW(cross_entropy_loss(tape, x, random_tensor(Shape{4}, 1), 1), Error);
  std::fill_n(classes.as<std::int32_t>(), 4, 5);
  EXPECT_THROW(cross_entropy_loss(tape, x, classes, 1), Error);
}

}  // namespace
}  // namespace tessera::autograd
