// SPDX-License-Identifier: Apache-2.0
// Operations of a group whose ranks have their own tokens between products, against one rank.
#include "tessera/autograd/token_shards.hpp"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/autograd/embedding.hpp"
#include "tessera/autograd/head_loss.hpp"
#include "tessera/autograd/layer_norm.hpp"
#include "tessera/autograd/linear.hpp"
#include "tessera/base/cpu_features.hpp"
#include "tessera/comm/runtime.hpp"

#include "support/expect_error.hpp"

namespace tessera::autograd {
namespace {

constexpr std::int64_t kWidth = 6, kInner = 8, kVocabulary = 11, kPositions = 13;

Tensor filled(const Shape& shape, int seed) {
  Tensor tensor(shape, DType::fp32);
  for (std::int64_t i = 0; i < tensor.numel(); ++i)
    tensor.as<float>()[i] = std::sin(0.7f * static_cast<float>(i + 31 * seed));
  return tensor;
}

Tensor ids(std::int64_t count, std::int64_t below) {
  Tensor tensor(Shape{1, count}, DType::int32);
  for (std::int64_t i = 0; i < count; ++i)
    tensor.as<std::int32_t>()[i] = static_cast<std::int32_t>((5 * i + 3) % below);
  return tensor;
}

/// Rows and columns of a matrix.
Tensor part(const Tensor& whole, const Interval& rows, const Interval& columns) {
  const std::int64_t width = whole.shape()[-1];
  Tensor result({rows.size(), columns.size()}, DType::fp32);
  for (std::int64_t r = 0; r < rows.size(); ++r)
    for (std::int64_t c = 0; c < columns.size(); ++c)
      result.as<float>()[r * columns.size() + c] =
          whole.as<float>()[(rows.begin + r) * width + columns.begin + c];
  return result;
}

Weight weight(const Tensor& value) {
  Weight result;
  result.value = value;
  result.gradient = filled(value.shape(), 99);
  return result;
}

void expect_near(const Tensor& found, const Tensor& expected) {
  ASSERT_EQ(found.numel(), expected.numel());
  for (std::int64_t i = 0; i < found.numel(); ++i)
    ASSERT_NEAR(found.as<float>()[i], expected.as<float>()[i], 2e-5) << "element " << i;
}

/// With as many tokens as divide by no group, and with fewer than ranks.
class TokenShards : public ::testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override { set_threads(1); }

  Communicator& world() { return runtime_.world(); }
  std::int64_t tokens() const { return GetParam(); }
  Interval own() { return token_shard(world(), tokens()); }
  Tensor own_of(const Tensor& whole) { return part(whole, own(), {0, whole.shape()[-1]}); }
  Interval share(std::int64_t size) { return balanced_share(size, world().size(), world().rank()); }
  VocabularyPart vocabulary() { return {{share(kVocabulary).begin, kVocabulary}, &world(), true}; }

  std::int64_t sent(const char* operation) {
    const std::int64_t bytes = world().traffic().count(operation).bytes;
    const Traffic::Pause pause(world().traffic());
    return world().all_reduce_scalar(bytes, Reduction::sum);
  }
  /// What the ranks send together to gather all tokens once.
  std::int64_t once() { return (world().size() - 1) * tokens() * kWidth * 4; }

  Runtime runtime_;
};

TEST_P(TokenShards, APairOfProductsIsThatOfOneRankAndSendsFiveTimesTheTokens) {
  const Interval inner = share(kInner), width{0, kWidth};
  const Tensor x = filled({tokens(), kWidth}, 1), dy = filled({tokens(), kWidth}, 2);
  const Tensor a = filled({kWidth, kInner}, 3), b = filled({kInner, kWidth}, 4);
  Weight whole_a = weight(a), whole_b = weight(b), bias = weight(filled({kWidth}, 5));

  Tape alone(Recording::on);
  const Value input = Value::leaf(x);
  const Value expected = linear(alone, linear(alone, input, whole_a, nullptr), whole_b, &bias);
  alone.backward(expected, dy);

  Weight own_a = weight(part(a, width, inner)), own_b = weight(part(b, inner, width));
  Weight same_bias = weight(bias.value);
  world().traffic().reset();
  Tape tape(Recording::on);
  const Value shard = Value::leaf(own_of(x));
  const Value gathered = gather_tokens(tape, shard, {1, tokens(), kWidth}, world());
  const Value found = row_linear_to_shards(tape, linear(tape, gathered, own_a, nullptr), own_b,
                                           &same_bias, world());
  tape.backward(found, own_of(dy));
  // Forward one of each; backward one of each, and the input once more for its weight's gradient.
  EXPECT_EQ(sent("all_gather"), 3 * once());
  EXPECT_EQ(sent("reduce_scatter"), 2 * once());

  expect_near(found.data(), own_of(expected.data()));
  expect_near(shard.gradient(), own_of(input.gradient()));
  expect_near(own_a.gradient, part(whole_a.gradient, width, inner));
  expect_near(own_b.gradient, part(whole_b.gradient, inner, width));
  expect_near(same_bias.gradient, bias.gradient);
}

TEST_P(TokenShards, GradientsOfANormAreThoseOfAllTokens) {
  const Tensor x = filled({tokens(), kWidth}, 1), dy = filled({tokens(), kWidth}, 2);
  for (const bool accumulates : {false, true}) {
    Weight scale = weight(filled({kWidth}, 3)), shift = weight(filled({kWidth}, 4));
    scale.gradient_written = shift.gradient_written = accumulates;
    Weight same_scale = weight(scale.value), same_shift = weight(shift.value);
    same_scale.gradient_written = same_shift.gradient_written = accumulates;
    Tape alone(Recording::on);
    const Value input = Value::leaf(x);
    alone.backward(layer_norm(alone, input, scale, shift, 1e-5f), dy);

    world().traffic().reset();
    Tape tape(Recording::on);
    const Value shard = Value::leaf(own_of(x));
    tape.backward(layer_norm(tape, shard, same_scale, same_shift, 1e-5f, true, &world()),
                  own_of(dy));
    EXPECT_EQ(sent("all_reduce"), 2 * (world().size() - 1) * 2 * kWidth * 4);
    expect_near(shard.gradient(), own_of(input.gradient()));
    expect_near(same_scale.gradient, scale.gradient);
    expect_near(same_shift.gradient, shift.gradient);
    EXPECT_TRUE(same_scale.gradient_written && same_shift.gradient_written);
  }
}

TEST_P(TokenShards, LookUpsEndWithOwnTokens) {
  const Tensor table = filled({kVocabulary, kWidth}, 1), dy = filled({1, tokens(), kWidth}, 2);
  Weight tokens_of_all = weight(table), places = weight(filled({kPositions, kWidth}, 3));
  Tape alone(Recording::on);
  const Tensor which = ids(tokens(), kVocabulary), where = ids(tokens(), kPositions);
  const Value expected = embedding(alone, tokens_of_all, which, &places, where);
  alone.backward(expected, dy);

  Weight own_table = weight(part(table, share(kVocabulary), {0, kWidth}));
  Weight same_places = weight(places.value);
  world().traffic().reset();
  Tape tape(Recording::on);
  const Value found = embedding(tape, own_table, which, &same_places, where, vocabulary());
  tape.backward(found, own_of(dy));
  EXPECT_EQ(sent("reduce_scatter"), once());
  EXPECT_EQ(sent("all_gather"), once());
  expect_near(found.data(), own_of(expected.data()));
  expect_near(own_table.gradient, part(tokens_of_all.gradient, share(kVocabulary), {0, kWidth}));
  expect_near(same_places.gradient, places.gradient);
}

TEST_P(TokenShards, AHeadGathersOnce) {
  const Tensor table = filled({kVocabulary, kWidth}, 1), x = filled({tokens(), kWidth}, 2);
  const Tensor targets = ids(tokens(), kVocabulary);
  Weight whole = weight(table), own_table = weight(part(table, share(kVocabulary), {0, kWidth}));
  Tape alone(Recording::on);
  const Value input = Value::leaf(x);
  const Loss expected = head_loss(alone, input, whole, targets, 0.25f);
  alone.backward();

  world().traffic().reset();
  Tape tape(Recording::on);
  const Value shard = Value::leaf(own_of(x));
  const Loss found = head_loss(tape, shard, own_table, targets, 0.25f, nullptr, vocabulary());
  tape.backward();
  EXPECT_EQ(sent("all_gather"), once());
  EXPECT_EQ(sent("reduce_scatter"), once());
  EXPECT_NEAR(found.sum(), expected.sum(), 1e-5);
  expect_near(shard.gradient(), own_of(input.gradient()));
  expect_near(own_table.gradient, part(whole.gradient, share(kVocabulary), {0, kWidth}));
  Tape reading(Recording::off);
  EXPECT_NEAR(
      head_loss(reading, Value(own_of(x)), own_table, targets, 1, nullptr, vocabulary()).sum(),
      expected.sum(), 1e-5);
}

TEST_P(TokenShards, OtherTokensThanOwnAreNamed) {
  Tape tape(Recording::on);
  const Value wrong(filled({tokens() + 1, kWidth}, 1));
  test::expect_error(Code::invalid_argument, {"of a rank's"}, [&] {
    gather_tokens(tape, wrong, {1, tokens(), kWidth}, world());
  });
}

INSTANTIATE_TEST_SUITE_P(Tokens, TokenShards, ::testing::Values(13, 2));

}  // namespace
}  // namespace tessera::autograd
