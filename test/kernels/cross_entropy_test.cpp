// SPDX-License-Identifier: Apache-2.0
// Cross-entropy and its gradient against a plain fp64 loop and numeric differences.
#include "tessera/kernels/cross_entropy.hpp"

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

using namespace tessera::testing;

struct Problem {
  std::int64_t rows, columns, valid;
  std::vector<std::int32_t> targets;
};

Problem make_problem(std::int64_t rows, std::int64_t columns, std::int64_t valid) {
  Problem p{rows, columns, valid, {}};
  for (std::int64_t r = 0; r < rows; ++r)
    p.targets.push_back(r % 3 == 2 ? -100 : static_cast<std::int32_t>(r * 7 % valid));
  return p;
}

Doubles reference_losses(const Problem& p, const Doubles& logits) {
  Doubles losses;
  for (std::int64_t r = 0; r < p.rows; ++r) {
    const double* x = logits.data() + r * p.columns;
    const std::int32_t target = p.targets[static_cast<std::size_t>(r)];
    double largest = x[0], sum = 0;
    for (std::int64_t j = 0; j < p.valid; ++j) largest = std::max(largest, x[j]);
    for (std::int64_t j = 0; j < p.valid; ++j) sum += std::exp(x[j] - largest);
    losses.push_back(target < 0 ? 0 : std::log(sum) + largest - x[target]);
  }
  return losses;
}

class CrossEntropyTest : public ::testing::TestWithParam<DType> {};

TEST_P(CrossEntropyTest, LossesAndGradient) {
  const float scale = 0.25f;
  for (const std::int64_t rows : {1, 3, 17})
    for (const std::int64_t valid : {1, 3, 17, 65}) {
      const Problem p = make_problem(rows, valid + valid % 5, valid);
      const auto logits = random_array(GetParam(), rows * p.columns, 1, 2);
      TypedArray losses(DType::fp32, static_cast<std::size_t>(rows));
      auto gradient = filled_array(GetParam(), rows * p.columns, 7);
      CrossEntropy args{.logits = logits.data(),
                        .targets = p.targets.data(),
                        .losses = losses.as<float>(),
                        .dlogits = gradient.data(),
                        .scale = scale,
                        .rows = rows,
                        .columns = p.columns,
                        .valid_columns = valid,
                        .dtype = GetParam()};
      on_device::cross_entropy(args);
      const auto total = [&](const Doubles& at) {
        double sum = 0;
        for (const double loss : reference_losses(p, at)) sum += loss;
        return sum * double{scale};
      };
      const Doubles expected = numeric_gradient(total, logits.values());
      if (valid == 1) {  // one class: loss and gradient are zero
        for (const double value : losses.values()) EXPECT_NEAR(value, 0, 1e-6);
        for (const double value : gradient.values()) EXPECT_NEAR(value, 0, 1e-6);
      } else {
        expect_close(losses, reference_losses(p, logits.values()), 2);
        expect_close(gradient, expected, 4);
      }
      const TypedArray separate = losses;
      auto in_place = logits;
      args.logits = args.dlogits = in_place.data();
      on_device::cross_entropy(args);
      EXPECT_EQ(in_place, gradient);
      args.logits = logits.data();
      args.dlogits = nullptr;
      on_device::cross_entropy(args);
      EXPECT_EQ(losses, separate);
    }
}

TEST_P(CrossEntropyTest, TakesItsScaleFromMemory) {
  const Problem p = make_problem(3, 40, 33);
  auto given = random_array(GetParam(), 3 * 40, 1), read = given;
  TypedArray losses(DType::fp32, 3);
  const PassVariables variables{.gradient_scale = 0.375f};
  CrossEntropy args{.logits = given.data(),
                    .targets = p.targets.data(),
                    .losses = losses.as<float>(),
                    .dlogits = given.data(),
                    .scale = 0.375f,
                    .rows = 3,
                    .columns = 40,
                    .valid_columns = 33,
                    .dtype = GetParam()};
  on_device::cross_entropy(args);
  args.logits = args.dlogits = read.data();
  args.scale = 7;
  args.variables = &variables;
  on_device::cross_entropy(args);
  EXPECT_EQ(given, read);
}

TEST_P(CrossEntropyTest, PaddingAndIgnoredRowsAreZero) {
  const Problem p = make_problem(3, 40, 33);
  auto logits = random_array(GetParam(), 3 * 40, 1);
  TypedArray losses(DType::fp32, 3);
  on_device::cross_entropy({.logits = logits.data(),
                            .targets = p.targets.data(),
                            .losses = losses.as<float>(),
                            .dlogits = logits.data(),
                            .rows = 3,
                            .columns = 40,
                            .valid_columns = 33,
                            .dtype = GetParam()});
  const Doubles gradient = logits.values();
  for (std::size_t j = 33; j < 40; ++j) EXPECT_EQ(gradient[j], 0);
  for (std::size_t j = 80; j < 120; ++j) EXPECT_EQ(gradient[j], 0);
  EXPECT_EQ(losses.values()[2], 0);
}

TEST_P(CrossEntropyTest, WholeVocabularyAndThreads) {
  const Problem p = make_problem(4, 50304, 50257);
  const auto logits = random_array(GetParam(), 4 * 50304, 1, 3);
  TypedArray losses(DType::fp32, 4), again(DType::fp32, 4);
  auto gradient = logits, gradient_again = logits;
  CrossEntropy args{.logits = gradient.data(),
                    .targets = p.targets.data(),
                    .losses = losses.as<float>(),
                    .dlogits = gradient.data(),
                    .rows = 4,
                    .columns = 50304,
                    .valid_columns = 50257,
                    .dtype = GetParam()};
  on_device::cross_entropy(args);
  expect_close(losses, reference_losses(p, logits.values()));
  args.logits = args.dlogits = gradient_again.data();
  args.losses = again.as<float>();
  const WithThreads one(1);
  on_device::cross_entropy(args);
  EXPECT_EQ(losses, again);
  EXPECT_EQ(gradient, gradient_again);
}

TEST_P(CrossEntropyTest, NanComesThrough) {
  Doubles values(8, 1.0);
  values[5] = std::numeric_limits<double>::quiet_NaN();
  const TypedArray logits(GetParam(), values);
  const std::int32_t targets[] = {0, 0};
  float losses[2];
  on_device::cross_entropy({.logits = logits.data(),
                            .targets = targets,
                            .losses = losses,
                            .rows = 2,
                            .columns = 4,
                            .valid_columns = 4,
                            .dtype = GetParam()});
  EXPECT_FALSE(std::isnan(losses[0]));
  EXPECT_TRUE(std::isnan(losses[1]));
}

INSTANTIATE_TEST_SUITE_P(Types, CrossEntropyTest, kernel_types(), type_name);

TEST(CrossEntropy, RefusesTargetsOutsideTheVocabulary) {
  const float logits[8] = {};
  const std::int32_t targets[] = {1, 3};
  float losses[2];
  const CrossEntropy args{.logits = logits,
                          .targets = targets,
                          .losses = losses,
                          .rows = 2,
                          .columns = 4,
                          .valid_columns = 3,
                          .dtype = DType::fp32};
  if (on_cuda()) {  // not looked at before the launch
    on_device::cross_entropy(args);
    EXPECT_FALSE(std::isnan(losses[0]));
    EXPECT_TRUE(std::isnan(losses[1]));
    return;
  }
  try {
    on_device::cross_entropy(args);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::invalid_argument);
    EXPECT_NE(std::string(error.what()).find("row 1"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace tessera::kernels
