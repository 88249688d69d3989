// SPDX-License-Identifier: Apache-2.0
// Table look-up and its scatter-add gradient.
#include "tessera/kernels/embedding.hpp"

#include "tessera/base/error.hpp"

#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

namespace on_device = testing::on_device;
using testing::Doubles;
using testing::TypedArray;

/// Skewed like text: small ids are frequent, some never occur.
std::vector<std::int32_t> skewed_ids(std::int64_t count, std::int64_t table_rows) {
  const RandomStream random(3, 1);
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < count; ++i) {
    const double u = random.uniform(static_cast<std::uint64_t>(i));
    ids.push_back(static_cast<std::int32_t>(u * u * u * static_cast<double>(table_rows)));
  }
  return ids;
}

struct Case {
  std::int64_t rows, columns, table_rows;
};
const Case kCases[] = {{1, 1, 1}, {3, 17, 5}, {65, 3, 257}, {500, 65, 17}, {300, 129, 40}};

class Embedding : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, Embedding, testing::kernel_types(), testing::type_name);

TEST_P(Embedding, ForwardCopiesAndAdds) {
  for (const Case& c : kCases) {
    const auto ids = skewed_ids(c.rows, c.table_rows);
    const auto table = testing::random_array(GetParam(), c.table_rows * c.columns, 1);
    auto y = testing::random_array(GetParam(), c.rows * c.columns, 2);
    const auto before = y.values(), source = table.values();
    EmbeddingForward args{.table = table.data(),
                          .ids = ids.data(),
                          .y = y.data(),
                          .accumulate = true,
                          .rows = c.rows,
                          .columns = c.columns,
                          .table_rows = c.table_rows,
                          .dtype = GetParam()};
    on_device::embedding_forward(args);
    const auto looked_up = [&](std::size_t i) {
      const auto columns = static_cast<std::size_t>(c.columns);
      return source[static_cast<std::size_t>(ids[i / columns]) * columns + i % columns];
    };
    Doubles sums(before.size()), copies(before.size());
    for (std::size_t i = 0; i < sums.size(); ++i) {
      copies[i] = looked_up(i);
      sums[i] = before[i] + copies[i];
    }
    testing::expect_close(y, sums);
    args.accumulate = false;
    on_device::embedding_forward(args);
    EXPECT_EQ(y.values(), copies);
  }
}

TEST_P(Embedding, BackwardAddsRowsInOrder) {
  for (const Case& c : kCases) {
    for (const DType type : {DType::fp32, GetParam()}) {
      for (const bool accumulate : {false, true}) {
        const auto ids = skewed_ids(c.rows, c.table_rows);
        const auto dy = testing::random_array(GetParam(), c.rows * c.columns, 4);
        auto dtable = testing::random_array(type, c.table_rows * c.columns, 5);
        // Left to right in fp32, then one addition and one rounding: the same bits.
        std::vector<float> sums(dtable.size());
        const auto gradients = dy.values(), before = dtable.values();
        const auto columns = static_cast<std::size_t>(c.columns);
        for (std::size_t i = 0; i < gradients.size(); ++i)
          sums[static_cast<std::size_t>(ids[i / columns]) * columns + i % columns] +=
              static_cast<float>(gradients[i]);
        if (accumulate)
          for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += static_cast<float>(before[i]);
        TypedArray expected(type, sums.size());
        convert(sums.data(), DType::fp32, expected.data(), type, sums.size());
        on_device::embedding_backward({.dy = dy.data(),
                                       .ids = ids.data(),
                                       .dtable = dtable.data(),
                                       .gradient_type = type,
                                       .accumulate = accumulate,
                                       .rows = c.rows,
                                       .columns = c.columns,
                                       .table_rows = c.table_rows,
                                       .dtype = GetParam()});
        EXPECT_EQ(dtable.values(), expected.values());
      }
    }
  }
}

/// One rank's table holds rows [first, last): looking up and adding on all ranks is the whole.
TEST_P(Embedding, SlicesTogetherAreTheWhole) {
  const std::int64_t rows = 65, columns = 17, vocabulary = 23;
  const auto ids = skewed_ids(rows, vocabulary);
  const auto table = testing::random_array(GetParam(), vocabulary * columns, 1);
  const auto dy = testing::random_array(GetParam(), rows * columns, 2);
  auto whole_y = testing::random_array(GetParam(), rows * columns, 3);
  auto whole_gradient = testing::random_array(DType::fp32, vocabulary * columns, 4);
  EmbeddingForward forward{.table = table.data(),
                           .ids = ids.data(),
                           .y = whole_y.data(),
                           .rows = rows,
                           .columns = columns,
                           .table_rows = vocabulary,
                           .dtype = GetParam()};
  EmbeddingBackward backward{.dy = dy.data(),
                             .ids = ids.data(),
                             .dtable = whole_gradient.data(),
                             .gradient_type = DType::fp32,
                             .accumulate = true,
                             .rows = rows,
                             .columns = columns,
                             .table_rows = vocabulary,
                             .dtype = GetParam()};
  auto gradient = whole_gradient;
  on_device::embedding_forward(forward);
  on_device::embedding_backward(backward);
  auto accumulated = testing::filled_array(GetParam(), rows * columns, 0);
  Doubles y(static_cast<std::size_t>(rows * columns));
  for (const auto& [first, last] : {std::pair{0, 9}, std::pair{9, 10}, std::pair{10, 23}}) {
    auto part = testing::random_array(GetParam(), rows * columns, 5);
    const auto offset = static_cast<std::size_t>(first * columns);
    forward.table = static_cast<const std::byte*>(table.data()) + offset * size_of(GetParam());
    forward.table_rows = backward.table_rows = last - first;
    forward.slice = backward.slice = {first, vocabulary};
    forward.y = part.data();
    forward.accumulate = false;
    on_device::embedding_forward(forward);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += part.values()[i];
    forward.y = accumulated.data();
    forward.accumulate = true;
    on_device::embedding_forward(forward);
    backward.dtable = gradient.as<float>() + offset;
    on_device::embedding_backward(backward);
  }
  EXPECT_EQ(y, whole_y.values());
  EXPECT_EQ(accumulated.values(), whole_y.values());
  EXPECT_EQ(gradient.values(), whole_gradient.values());
}

TEST(EmbeddingErrors, IdOutsideTheTableIsNamed) {
  const std::vector<std::int32_t> ids{0, 2, 3, -1};
  std::vector<float> table(6), y(8);
  EmbeddingForward args{.table = table.data(),
                        .ids = ids.data(),
                        .y = y.data(),
                        .rows = 4,
                        .columns = 2,
                        .table_rows = 3,
                        .dtype = DType::fp32};
  if (testing::on_cuda()) {  // not looked at before the launch
    on_device::embedding_forward(args);
    for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i >= 4) << i;
    return;
  }
  try {
    on_device::embedding_forward(args);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::invalid_argument);
    EXPECT_NE(std::string(error.what()).find("id 3 at index 2"), std::string::npos) << error.what();
  }
}

TEST(PositionIds, CountFromTheFirstInEachRow) {
  for (const std::int64_t positions : {1, 3, 300}) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(3 * positions), -1);
    on_device::position_ids(ids.data(), 3, positions, 5);
    for (std::size_t i = 0; i < ids.size(); ++i)
      ASSERT_EQ(ids[i], 5 + static_cast<std::int64_t>(i) % positions) << i;
  }
}

}  // namespace
}  // namespace tessera::kernels
