// SPDX-License-Identifier: Apache-2.0
// The fused head against plain loops in double precision.
#include "tessera/autograd/head_loss.hpp"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/autograd/linear.hpp"
#include "tessera/base/error.hpp"

#include "autograd/gradient_check.hpp"

namespace tessera::autograd {
namespace {

constexpr std::int64_t kWidth = 6;

Tensor targets_tensor(std::int64_t rows, std::int64_t vocabulary) {
  Tensor targets(Shape{rows}, DType::int32);
  for (std::int64_t r = 0; r < rows; ++r)
    targets.as<std::int32_t>()[r] =
        r % 5 == 3 ? -100 : static_cast<std::int32_t>((r * 7) % vocabulary);
  return targets;
}

struct Reference {
  double loss = 0;
  std::vector<double> dhidden, dweight;
};

Reference reference(const Tensor& hidden, const Tensor& table, const Tensor& targets,
                    double scale) {
  const std::int64_t rows = targets.numel(), vocabulary = table.size(0);
  const auto h = [&](std::int64_t r, std::int64_t i) {
    return static_cast<double>(hidden.as<float>()[r * kWidth + i]);
  };
  const auto w = [&](std::int64_t v, std::int64_t i) {
    return static_cast<double>(table.as<float>()[v * kWidth + i]);
  };
  Reference result;
  result.dhidden.resize(static_cast<std::size_t>(rows * kWidth));
  result.dweight.resize(static_cast<std::size_t>(vocabulary * kWidth));
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int32_t target = targets.as<std::int32_t>()[r];
    if (target < 0) continue;
    std::vector<double> p(static_cast<std::size_t>(vocabulary));
    double sum = 0;
    for (std::int64_t v = 0; v < vocabulary; ++v) {
      double logit = 0;
      for (std::int64_t i = 0; i < kWidth; ++i) logit += h(r, i) * w(v, i);
      if (v == target) result.loss -= logit;
      sum += p[static_cast<std::size_t>(v)] = std::exp(logit);
    }
    result.loss += std::log(sum);
    for (std::int64_t v = 0; v < vocabulary; ++v) {
      const double d = scale * (p[static_cast<std::size_t>(v)] / sum - (v == target ? 1 : 0));
      for (std::int64_t i = 0; i < kWidth; ++i) {
        result.dhidden[static_cast<std::size_t>(r * kWidth + i)] += d * w(v, i);
        result.dweight[static_cast<std::size_t>(v * kWidth + i)] += d * h(r, i);
      }
    }
  }
  return result;
}

void expect_near(const Tensor& actual, const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(actual.numel(), static_cast<std::int64_t>(expected.size()));
  double largest = 1e-12;
  for (const double value : expected) largest = std::max(largest, std::fabs(value));
  const Tensor wide = actual.to(DType::fp32);
  for (std::size_t i = 0; i < expected.size(); ++i)
    ASSERT_NEAR(wide.as<float>()[i], expected[i], tolerance * largest) << i;
}

/// Rows and vocabulary; the last needs several chunks.
struct HeadLossSizes : testing::TestWithParam<std::pair<std::int64_t, std::int64_t>> {};

TEST_P(HeadLossSizes, MatchesPlainLoops) {
  const auto [rows, vocabulary] = GetParam();
  Weight table = random_weight(Shape{vocabulary, kWidth}, 1);
  const Tensor hidden = random_tensor(Shape{rows, kWidth}, 2);
  const Tensor targets = targets_tensor(rows, vocabulary);
  const Reference expected = reference(hidden, table.value, targets, 0.25);

  Tape tape(Recording::on);
  const Value leaf = Value::leaf(hidden);
  const Loss loss = head_loss(tape, leaf, table, targets, 0.25f);
  EXPECT_FALSE(loss.known());
  EXPECT_THROW(loss.sum(), Error);
  tape.backward();
  EXPECT_NEAR(loss.sum(), expected.loss, 1e-5 * expected.loss);
  expect_near(leaf.gradient(), expected.dhidden, 1e-5);
  expect_near(table.gradient, expected.dweight, 1e-5);

  Tape off(Recording::off);
  EXPECT_EQ(head_loss(off, Value(hidden), table, targets, 1).sum(), loss.sum());
}

INSTANTIATE_TEST_SUITE_P(Sizes, HeadLossSizes,
                         testing::Values(std::pair{1, 3}, std::pair{17, 65},
                                         std::pair{600, 70001}));

TEST(HeadLoss, NarrowGradientOfManyChunksIsRoundedOnce) {
  constexpr std::int64_t kRows = 520, kVocabulary = 140003;
  const Tensor targets = targets_tensor(kRows, kVocabulary);
  Weight table = random_weight(Shape{kVocabulary, kWidth}, 1);
  table.value = table.value.to(DType::bf16);
  const Tensor hidden = random_tensor(Shape{kRows, kWidth}, 2).to(DType::bf16);
  const auto gradient = [&](DType dtype) {
    table.gradient = Tensor(table.value.shape(), dtype);
    table.gradient_written = false;
    Tape tape(Recording::on);
    head_loss(tape, Value::leaf(hidden), table, targets, 1);
    tape.backward();
    return table.gradient;
  };
  const Tensor wide = gradient(DType::fp32).to(DType::bf16);
  const Tensor narrow = gradient(DType::bf16);
  for (std::int64_t i = 0; i < wide.numel(); ++i)
    ASSERT_EQ(wide.as<bf16>()[i].bits, narrow.as<bf16>()[i].bits) << i;
}

TEST(HeadLoss, AddsToAGradientThatIsThere) {
  Weight table = random_weight(Shape{9, kWidth}, 1);
  const Tensor hidden = random_tensor(Shape{4, kWidth}, 2);
  const Tensor targets = targets_tensor(4, 9);
  const std::vector<float> before = to_vector(table.gradient);
  table.gradient_written = true;
  Tape tape(Recording::on);
  head_loss(tape, Value(hidden), table, targets, 1);
  tape.backward();
  std::vector<double> expected = reference(hidden, table.value, targets, 1).dweight;
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += static_cast<double>(before[i]);
  expect_near(table.gradient, expected, 1e-5);
}

TEST(HeadLoss, OfARecordedPassReadsItsScaleAndWritesItsLossesInPlace) {
  Weight table = random_weight(Shape{9, kWidth}, 1);
  const Tensor hidden = random_tensor(Shape{4, kWidth}, 2);
  const Tensor targets = targets_tensor(4, 9);
  const kernels::PassVariables variables{.gradient_scale = 0.25f};
  std::vector<float> losses(4, -1);
  const PassMemory memory{&variables, losses.data()};
  Tape tape(Recording::on);
  const Loss loss = head_loss(tape, Value(hidden), table, targets, 7, &memory);
  tape.backward();
  EXPECT_FALSE(loss.known()) << "it is another one with each launch";
  const Reference expected = reference(hidden, table.value, targets, 0.25);
  expect_near(table.gradient, expected.dweight, 1e-5);
  EXPECT_NEAR(read_losses({}, losses.data(), 4).sum(), expected.loss, 1e-5 * expected.loss);
}

TEST(HeadLoss, RefusesWhatDoesNotFit) {
  Weight table = random_weight(Shape{9, kWidth}, 1);
  Tape tape(Recording::off);
  EXPECT_THROW(
      head_loss(tape, Value(random_tensor(Shape{4, 5}, 2)), table, targets_tensor(4, 9), 1), Error);
  EXPECT_THROW(
      head_loss(tape, Value(random_tensor(Shape{4, kWidth}, 2)), table, targets_tensor(3, 9), 1),
      Error);
}

}  // namespace
}  // namespace tessera::autograd
