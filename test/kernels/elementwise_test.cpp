// SPDX-License-Identifier: Apache-2.0
// Flat loops against fp64, at odd sizes and offsets.
#include "tessera/kernels/elementwise.hpp"

#include "tessera/base/error.hpp"

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

namespace on_device = testing::on_device;
using testing::Doubles;
using testing::TypedArray;

class Elementwise : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, Elementwise, testing::kernel_types(), testing::type_name);

const std::int64_t kSizes[] = {0, 1, 3, 17, 65, 40000};

Doubles map(const Doubles& a, const Doubles& b, auto function) {
  Doubles result(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) result[i] = function(a[i], b[i]);
  return result;
}

TEST_P(Elementwise, AddMatchesAndWritesNothingElse) {
  for (const auto count : kSizes) {
    const auto a = testing::random_array(GetParam(), count, 1);
    const auto b = testing::random_array(GetParam(), count, 2);
    auto y = testing::filled_array(GetParam(), count + 1, 7);
    on_device::add(a.data(), b.data(), y.data(), count, GetParam());
    auto expected = map(a.values(), b.values(), [](double s, double t) { return s + t; });
    expected.push_back(7);
    testing::expect_close(y, expected);
    EXPECT_EQ(y.values().back(), 7);
  }
}

TEST_P(Elementwise, ScaleWorksInPlace) {
  auto x = testing::random_array(GetParam(), 65, 3);
  const auto before = x.values();
  on_device::scale(x.data(), -0.3f, x.data(), 65, GetParam());
  testing::expect_close(x, map(before, before, [](double s, double) { return -0.3f * s; }));
}

TEST_P(Elementwise, AccumulateMixesTypes) {
  for (const DType type : {DType::fp32, DType::bf16, DType::fp16}) {
    for (const auto count : kSizes) {
      const auto x = testing::random_array(GetParam(), count, 4);
      auto sum = testing::random_array(type, count, 5);
      const auto before = sum.values();
      on_device::accumulate(x.data(), GetParam(), 0.5f, sum.data(), type, count);
      testing::expect_close(
          sum, map(x.values(), before, [](double s, double t) { return 0.5 * s + t; }));
    }
  }
}

TEST_P(Elementwise, CastRoundsLikeConvert) {
  for (const DType type : {DType::fp32, DType::bf16, DType::fp16, DType::fp64}) {
    for (const auto count : kSizes) {
      const auto x = testing::random_array(GetParam(), count, 6);
      TypedArray y(type, static_cast<std::size_t>(count)), expected = y;
      on_device::cast(x.data(), GetParam(), y.data(), type, count);
      convert(x.data(), GetParam(), expected.data(), type, static_cast<std::size_t>(count));
      EXPECT_TRUE(y == expected);
    }
  }
}

TEST_P(Elementwise, SlicesGiveTheSameBits) {
  const std::int64_t count = 1000;
  const auto a = testing::random_array(GetParam(), count, 7);
  auto whole = testing::random_array(GetParam(), count, 8), cut = whole;
  const auto bytes = static_cast<std::int64_t>(size_of(GetParam()));
  const auto run = [&](TypedArray& target, std::int64_t begin, std::int64_t end) {
    on_device::accumulate(static_cast<const char*>(a.data()) + begin * bytes, GetParam(), 0.37f,
                          static_cast<char*>(target.data()) + begin * bytes, GetParam(),
                          end - begin);
  };
  run(whole, 0, count);
  for (std::int64_t begin = 0, size = 1; begin < count; begin += size, size = size * 2 + 1)
    run(cut, begin, std::min(count, begin + size));
  EXPECT_TRUE(whole == cut);
}

Doubles column_sums(const Doubles& x, std::int64_t rows, std::int64_t columns) {
  Doubles sums(static_cast<std::size_t>(columns));
  for (std::int64_t i = 0; i < rows * columns; ++i)
    sums[static_cast<std::size_t>(i % columns)] += x[static_cast<std::size_t>(i)];
  return sums;
}

TEST_P(Elementwise, ColumnSumMatchesForAnyThreadCount) {
  for (const DType type : {DType::fp32, GetParam()}) {
    for (const auto& [rows, columns] : {std::pair{1, 1}, {3, 17}, {65, 3}, {1000, 65}}) {
      const auto x = testing::random_array(GetParam(), rows * columns, 9);
      auto y = testing::random_array(type, columns, 10), again = y;
      const auto before = y.values();
      for (const bool accumulate_y : {true, false}) {
        auto expected = column_sums(x.values(), rows, columns);
        if (accumulate_y)
          expected = map(expected, before, [](double s, double t) { return s + t; });
        const ColumnSum args{.x = x.data(),
                             .y = y.data(),
                             .output_type = type,
                             .accumulate = accumulate_y,
                             .rows = rows,
                             .columns = columns,
                             .dtype = GetParam()};
        on_device::column_sum(args);
        testing::expect_close(y, expected, 2);
        const testing::WithThreads one(1);
        ColumnSum other = args;
        other.y = again.data();
        on_device::column_sum(other);
        EXPECT_TRUE(y == again) << rows << " x " << columns;
      }
    }
  }
}

TEST(ElementwiseErrors, OtherTypesAreRefused) {
  EXPECT_THROW(on_device::add(nullptr, nullptr, nullptr, 1, DType::int32), Error);
}

}  // namespace
}  // namespace tessera::kernels
