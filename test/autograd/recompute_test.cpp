// SPDX-License-Identifier: Apache-2.0
// A region that is run again gives the same bits and keeps only its input.
#include <vector>

#include <gtest/gtest.h>

#include "tessera/autograd/activation.hpp"
#include "tessera/autograd/dropout.hpp"
#include "tessera/autograd/linear.hpp"

#include "autograd/gradient_check.hpp"

namespace tessera::autograd {
namespace {

struct Result {
  std::vector<float> y, dx, dweight;
  std::size_t nodes;
};

Result run(bool again) {
  Weight weight = random_weight(Shape{6, 6}, 1);
  const auto body = [&](Tape& tape, const Value& x) {
    const Value inner = linear(tape, x, weight, nullptr);
    return dropout_add(tape, x, activation(tape, inner, kernels::Activation::gelu),
                       {.probability = 0.25f, .seed = 1, .stream = 2});
  };
  Tape tape(Recording::on);
  const Value x = Value::leaf(random_tensor(Shape{5, 6}, 2));
  const Value first = again ? recompute(tape, x, body) : body(tape, x);
  const Value y = again ? recompute(tape, first, body) : body(tape, first);
  const std::size_t nodes = tape.size();
  tape.backward(y, random_tensor(Shape{5, 6}, 3));
  return {to_vector(y.data()), to_vector(x.gradient()), to_vector(weight.gradient), nodes};
}

TEST(Recompute, SameBits) {
  const Result plain = run(false);
  const Result again = run(true);
  EXPECT_EQ(plain.y, again.y);
  EXPECT_EQ(plain.dx, again.dx);
  EXPECT_EQ(plain.dweight, again.dweight);
  EXPECT_EQ(plain.nodes, 6u);
  EXPECT_EQ(again.nodes, 2u);
}

TEST(Recompute, WithoutRecordingJustRuns) {
  Weight weight = random_weight(Shape{6, 6}, 1);
  Tape tape(Recording::off);
  const Value y =
      recompute(tape, Value(random_tensor(Shape{5, 6}, 2)), [&](Tape& inner, const Value& x) {
        EXPECT_FALSE(inner.recording());
        return linear(inner, x, weight, nullptr);
      });
  EXPECT_FALSE(y.requires_gradient());
  EXPECT_EQ(y.shape(), (Shape{5, 6}));
}

}  // namespace
}  // namespace tessera::autograd
