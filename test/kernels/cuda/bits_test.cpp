// SPDX-License-Identifier: Apache-2.0
// CUDA kernels that promise the bits of their CPU twins, aligned and not, and that sums have one
// order.
#include "support/kernel_testing.hpp"
#include "support/on_device.hpp"

namespace tessera::kernels {
namespace {

namespace on_device = testing::on_device;
using testing::TypedArray;

/// Beyond a block, and not a multiple of anything.
constexpr std::int64_t kCount = 5003;

/// The elements from `shift` on.
template <typename T>
auto* from(T* data, std::int64_t shift, DType dtype) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return static_cast<T*>(static_cast<Byte*>(data) +
                         shift * static_cast<std::int64_t>(size_of(dtype)));
}

/// A parameter of each kind with states, all random.
struct Slice {
  Slice(DType parameter_type, DType gradient_type)
      : parameter(testing::random_array(parameter_type, kCount, 1)),
        low(testing::random_array(DType::bf16, kCount, 2)),
        rounded(DType::fp16, kCount),
        gradient(testing::random_array(gradient_type, kCount, 3)),
        first(testing::random_array(DType::fp32, kCount, 4)),
        second(testing::random_array(DType::fp32, kCount, 5)) {
    for (std::int64_t i = 0; i < kCount; ++i) second.as<float>()[i] *= second.as<float>()[i];
  }
  /// What both update rules have, from element `shift` on.
  template <typename Args>
  void describe(Args& args, bool with_copy, std::int64_t shift) {
    args.parameter = from(parameter.data(), shift, parameter.dtype());
    args.low = parameter.dtype() == DType::bf16 ? low.as<std::uint16_t>() + shift : nullptr;
    args.rounded = with_copy ? rounded.as<fp16>() + shift : nullptr;
    args.gradient = from(gradient.data(), shift, gradient.dtype());
    args.gradient_type = gradient.dtype();
    args.gradient_scale = 0.37f;
    args.count = kCount - shift;
  }
  bool operator==(const Slice&) const = default;

  TypedArray parameter, low, rounded, gradient, first, second;
};

struct Kind {
  DType parameter, gradient;
  bool with_copy;
};
const Kind kKinds[] = {{DType::fp32, DType::fp32, false}, {DType::fp32, DType::bf16, false},
                       {DType::fp32, DType::fp16, false}, {DType::bf16, DType::fp32, false},
                       {DType::bf16, DType::bf16, false}, {DType::bf16, DType::fp16, false},
                       {DType::fp32, DType::fp16, true}};

TEST(CudaBits, AdamW) {
  for (const Kind kind : kKinds)
    for (const std::int64_t shift : {0, 1, 8})
      for (const bool decoupled : {true, false}) {
        Slice here(kind.parameter, kind.gradient), there = here;
        const auto args = [&](Slice& slice) {
          AdamW result{};
          slice.describe(result, kind.with_copy, shift);
          result.exp_avg = slice.first.as<float>() + shift;
          result.exp_avg_sq = slice.second.as<float>() + shift;
          result.lr = 3e-3;
          result.beta1 = 0.9;
          result.beta2 = 0.95;
          result.epsilon = 1e-8;
          result.weight_decay = 0.1;
          result.correction1 = 0.1;
          result.correction2 = 0.05;
          result.decoupled = decoupled;
          return result;
        };
        adamw(Stream(), args(here));
        on_device::adamw(args(there));
        EXPECT_TRUE(here == there)
            << to_string(kind.parameter) << ' ' << to_string(kind.gradient) << " from " << shift;
      }
}

TEST(CudaBits, Sgd) {
  for (const Kind kind : kKinds)
    for (const std::int64_t shift : {0, 1, 8})
      for (const int momentum : {0, 1, 2}) {  // none, first step, later
        Slice here(kind.parameter, kind.gradient), there = here;
        const auto args = [&](Slice& slice) {
          Sgd result{};
          slice.describe(result, kind.with_copy, shift);
          result.momentum_buffer = momentum > 0 ? slice.first.as<float>() + shift : nullptr;
          result.lr = 3e-3;
          result.momentum = momentum > 0 ? 0.9 : 0;
          result.dampening = 0.1;
          result.weight_decay = 0.01;
          result.nesterov = shift == 1;
          result.first_step = momentum == 1;
          return result;
        };
        sgd(Stream(), args(here));
        on_device::sgd(args(there));
        EXPECT_TRUE(here == there) << to_string(kind.parameter) << ' ' << to_string(kind.gradient)
                                   << " from " << shift << ", momentum " << momentum;
      }
}

class CudaBitsOfTypes : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, CudaBitsOfTypes, testing::kernel_types(), testing::type_name);

TEST_P(CudaBitsOfTypes, SimpleLoops) {
  const DType dtype = GetParam();
  const auto a = testing::random_array(dtype, kCount, 1),
             b = testing::random_array(dtype, kCount, 2);
  for (const std::int64_t shift : {0, 1, 8}) {
    const void *pa = from(a.data(), shift, dtype), *pb = from(b.data(), shift, dtype);
    const std::int64_t count = kCount - shift;
    auto here = a, there = a;
    add(Stream(), pa, pb, here.data(), count, dtype);
    on_device::add(pa, pb, there.data(), count, dtype);
    EXPECT_TRUE(here == there) << "add from " << shift;
    scale(Stream(), pa, 0.3f, here.data(), count, dtype);
    on_device::scale(pa, 0.3f, there.data(), count, dtype);
    EXPECT_TRUE(here == there) << "scale from " << shift;
    for (const DType other : {DType::fp32, DType::bf16, DType::fp16}) {
      auto sum_here = testing::random_array(other, kCount, 3), sum_there = sum_here;
      accumulate(Stream(), pa, dtype, 0.3f, sum_here.data(), other, count);
      on_device::accumulate(pa, dtype, 0.3f, sum_there.data(), other, count);
      EXPECT_TRUE(sum_here == sum_there) << "accumulate from " << shift;
    }
    for (const DType other : {DType::fp32, DType::bf16, DType::fp16, DType::fp64}) {
      auto cast_here = testing::random_array(other, kCount, 3), cast_there = cast_here;
      cast(Stream(), pa, dtype, cast_here.data(), other, count);
      on_device::cast(pa, dtype, cast_there.data(), other, count);
      EXPECT_TRUE(cast_here == cast_there) << "cast from " << shift << " to " << to_string(other);
    }
  }
}

TEST_P(CudaBitsOfTypes, Dropout) {
  const DType dtype = GetParam();
  const auto x = testing::random_array(dtype, kCount, 1),
             r = testing::random_array(dtype, kCount, 2);
  for (const std::int64_t offset : {std::int64_t{0}, std::int64_t{3}, (std::int64_t{1} << 34) + 8})
    for (const bool residual : {false, true}) {
      auto here = x, there = x;
      Dropout args{.x = x.data(),
                   .residual = residual ? r.data() : nullptr,
                   .y = here.data(),
                   .count = kCount,
                   .offset = offset,
                   .probability = 0.3f,
                   .seed = 0x123456789abcdefu,
                   .stream = 0xfedcba987654321u,
                   .dtype = dtype};
      dropout(Stream(), args);
      args.y = there.data();
      on_device::dropout(args);
      EXPECT_TRUE(here == there) << offset;
    }
}

/// More tokens than a tile, ids of one, two and three digits, frequent and rare ones.
TEST_P(CudaBitsOfTypes, EmbeddingGradient) {
  for (const std::int64_t table_rows : {5, 300, 70000})
    for (const std::int64_t columns : {3, 16}) {
      const std::int64_t rows = 1300;
      const RandomStream random(7, 0);
      std::vector<std::int32_t> ids;
      for (std::int64_t r = 0; r < rows; ++r) {
        const auto word = static_cast<std::int64_t>(random.bits(static_cast<std::uint64_t>(r)));
        ids.push_back(static_cast<std::int32_t>(r % 3 == 0 ? table_rows - 1 : word % table_rows));
      }
      const auto dy = testing::random_array(GetParam(), rows * columns, 1);
      for (const DType type : {DType::fp32, GetParam()})
        for (const bool accumulate : {false, true}) {
          auto here = testing::filled_array(type, table_rows * columns, 0.5), there = here;
          EmbeddingBackward args{.dy = dy.data(),
                                 .ids = ids.data(),
                                 .dtable = here.data(),
                                 .gradient_type = type,
                                 .accumulate = accumulate,
                                 .rows = rows,
                                 .columns = columns,
                                 .table_rows = table_rows,
                                 .dtype = GetParam()};
          embedding_backward(Stream(), args);
          args.dtable = there.data();
          on_device::embedding_backward(args);
          EXPECT_TRUE(here == there) << table_rows << " x " << columns;
        }
    }
}

TEST_P(CudaBitsOfTypes, BlockSquareSums) {
  for (const std::int64_t count : {1, 7, 1024, 5003, 70001}) {
    const auto x = testing::random_array(GetParam(), count, 1);
    const auto blocks = static_cast<std::size_t>(ceil_divide(count, kNormBlock));
    std::vector<double> here(blocks), there(blocks);
    block_square_sums(Stream(), x.data(), GetParam(), count, here.data());
    on_device::block_square_sums(x.data(), GetParam(), count, there.data());
    EXPECT_EQ(here, there) << count;
  }
}

TEST_P(CudaBitsOfTypes, ElementLoss) {
  for (const std::int64_t count : {1, 31, 1024, 5003, 70001})
    for (const auto kind :
         {ElementLossKind::squared, ElementLossKind::absolute, ElementLossKind::huber}) {
      const auto prediction = testing::random_array(GetParam(), count, 1);
      auto target = testing::random_array(DType::fp32, count, 2);
      const auto blocks = static_cast<std::size_t>(ceil_divide(count, kLossBlock));
      std::vector<double> here(blocks), there(blocks);
      auto slopes_here = testing::filled_array(GetParam(), count, 7), slopes_there = slopes_here;
      ElementLoss args{.prediction = prediction.data(),
                       .target = target.as<float>(),
                       .sums = here.data(),
                       .dprediction = slopes_here.data(),
                       .scale = 0.37f,
                       .count = count,
                       .kind = kind,
                       .delta = 0.6f,
                       .dtype = GetParam()};
      element_loss(Stream(), args);
      args.sums = there.data();
      args.dprediction = slopes_there.data();
      on_device::element_loss(args);
      EXPECT_EQ(here, there) << count;
      EXPECT_TRUE(slopes_here == slopes_there) << count;
    }
}

TEST_P(CudaBitsOfTypes, ColumnSumsRepeatAndAreNearTheCpu) {
  for (const std::int64_t rows : {0, 1, 9, 1025, 3000})
    for (const std::int64_t columns : {1, 24, 257, 264}) {
      const auto x = testing::random_array(GetParam(), rows * columns, 1);
      auto here = testing::filled_array(DType::fp32, columns, 0.5), there = here, again = here;
      ColumnSum args{.x = x.data(),
                     .y = here.data(),
                     .output_type = DType::fp32,
                     .accumulate = rows % 2 == 1,
                     .rows = rows,
                     .columns = columns,
                     .dtype = GetParam()};
      column_sum(Stream(), args);
      args.y = there.data();
      on_device::column_sum(args);
      args.y = again.data();
      on_device::column_sum(args);
      EXPECT_TRUE(there == again);
      testing::expect_close(there, here.values(), 2,
                            std::to_string(rows) + " x " + std::to_string(columns));
    }
}

}  // namespace
}  // namespace tessera::kernels
