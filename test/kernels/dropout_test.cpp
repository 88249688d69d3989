// SPDX-License-Identifier: Apache-2.0
// Dropout against RandomStream, element by element.
#include "tessera/kernels/dropout.hpp"

#include "tessera/base/error.hpp"

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

namespace on_device = testing::on_device;
using testing::Doubles;
using testing::TypedArray;

class DropoutTest : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, DropoutTest, testing::kernel_types(), testing::type_name);

constexpr float kProbability = 0.2f;

Dropout arguments(const TypedArray& x, TypedArray& y, std::int64_t offset) {
  return {.x = x.data(),
          .y = y.data(),
          .count = static_cast<std::int64_t>(x.size()),
          .offset = offset,
          .probability = kProbability,
          .seed = 0x123456789abcdefu,
          .stream = 0xfedcba987654321u,
          .dtype = x.dtype()};
}

Doubles reference(const Doubles& x, const Dropout& args) {
  const RandomStream random(args.seed, args.stream);
  Doubles y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto index = static_cast<std::uint64_t>(args.offset) + i;
    if (random.uniform(index) >= args.probability) y[i] = x[i] / (1.0 - args.probability);
  }
  return y;
}

TEST_P(DropoutTest, KeepsWhatTheStreamSays) {
  // The last offset makes the block counter cross 2^32 within the array.
  for (const std::int64_t offset :
       {std::int64_t{0}, std::int64_t{1}, std::int64_t{6}, (std::int64_t{1} << 34) - 37}) {
    for (const std::int64_t count : {1, 3, 17, 65, 5000}) {
      const auto x = testing::random_array(GetParam(), count, 1);
      auto y = testing::filled_array(GetParam(), count, 9);
      const auto args = arguments(x, y, offset);
      on_device::dropout(args);
      const auto expected = reference(x.values(), args), actual = y.values();
      testing::expect_close(y, expected);
      for (std::size_t i = 0; i < expected.size(); ++i)
        ASSERT_EQ(actual[i] == 0, expected[i] == 0) << i << " at offset " << offset;
    }
  }
}

TEST_P(DropoutTest, AddsTheResidualWithOneRounding) {
  const auto x = testing::random_array(GetParam(), 65, 1);
  auto y = testing::random_array(GetParam(), 65, 2);
  const auto residual = y.values();
  auto args = arguments(x, y, 5);
  args.residual = y.data();  // in place
  on_device::dropout(args);
  auto expected = reference(x.values(), args);
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += residual[i];
  testing::expect_close(y, expected);
}

TEST_P(DropoutTest, SlicesGiveTheSameBits) {
  const std::int64_t count = 70000;
  const auto x = testing::random_array(GetParam(), count, 3);
  TypedArray whole(GetParam(), x.size()), cut = whole;
  on_device::dropout(arguments(x, whole, 11));
  const auto bytes = static_cast<std::int64_t>(size_of(GetParam()));
  for (std::int64_t begin = 0, size = 1; begin < count; begin += size, size = size * 3 + 2) {
    auto args = arguments(x, cut, 11 + begin);
    args.x = static_cast<const char*>(x.data()) + begin * bytes;
    args.y = static_cast<char*>(cut.data()) + begin * bytes;
    args.count = std::min(size, count - begin);
    on_device::dropout(args);
  }
  EXPECT_TRUE(whole == cut);
}

TEST_P(DropoutTest, TakesItsPlaceFromMemory) {
  const PassVariables variables{.step = 12, .first_row = 5};
  for (const std::int64_t row_elements : {8, 7}) {
    const auto x = testing::random_array(GetParam(), 131, 5);
    TypedArray given(GetParam(), 131), read = given;
    auto args = arguments(x, given, 3 + 5 * row_elements);
    args.stream = mix(12, 4);
    on_device::dropout(args);
    args = arguments(x, read, 3);
    args.stream = 4;
    args.variables = &variables;
    args.row_elements = row_elements;
    on_device::dropout(args);
    EXPECT_TRUE(given == read) << row_elements;
  }
}

TEST_P(DropoutTest, ProbabilityZeroCopies) {
  const auto x = testing::random_array(GetParam(), 65, 4);
  TypedArray y(GetParam(), 65);
  auto args = arguments(x, y, 0);
  args.probability = 0;
  on_device::dropout(args);
  EXPECT_TRUE(x == y);
}

TEST(DropoutErrors, ImpossibleProbabilityIsRefused) {
  TypedArray x(DType::fp32, 1);
  for (const float probability : {-0.1f, 1.0f, std::nanf("")}) {
    auto args = arguments(x, x, 0);
    args.probability = probability;
    EXPECT_THROW(on_device::dropout(args), Error);
  }
}

}  // namespace
}  // namespace tessera::kernels
