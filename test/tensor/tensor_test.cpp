// SPDX-License-Identifier: Apache-2.0
// Handles, views and copies of tensors.
#include "tessera/tensor/tensor.hpp"

#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/device/memory.hpp"

namespace tessera {
namespace {

Tensor counting(Shape shape) {
  Tensor tensor(shape, DType::fp32);
  for (std::int64_t i = 0; i < tensor.numel(); ++i) tensor.as<float>()[i] = static_cast<float>(i);
  return tensor;
}

TEST(Tensor, DefaultIsNoTensor) {
  EXPECT_FALSE(Tensor());
  EXPECT_TRUE(Tensor(Shape{0, 3}, DType::fp32));
  EXPECT_TRUE(Tensor(Shape{2}, DType::bf16));
}

TEST(Tensor, CountsItsBytesByPurpose) {
  MemoryLedger& ledger = memory_ledger({});
  const std::int64_t before = ledger.current(Purpose::workspace);
  {
    const Tensor tensor(Shape{3, 5}, DType::bf16, {}, Purpose::workspace);
    EXPECT_EQ(tensor.bytes(), 30u);
    const Tensor copy = tensor;
    EXPECT_EQ(ledger.current(Purpose::workspace), before + 30);
  }
  EXPECT_EQ(ledger.current(Purpose::workspace), before);
}

TEST(Tensor, ViewsShareElements) {
  const Tensor tensor = counting(Shape{2, 6});
  const Tensor view = tensor.view(Shape{3, 4});
  EXPECT_EQ(view.data(), tensor.data());
  const Tensor rows = view.rows(1, 3);
  EXPECT_EQ(rows.shape(), (Shape{2, 4}));
  EXPECT_EQ(rows.as<float>()[0], 4.0f);
  EXPECT_FALSE(tensor.unique());
  EXPECT_THROW(tensor.view(Shape{5}), Error);
  EXPECT_THROW(tensor.rows(1, 3), Error);
  EXPECT_THROW(tensor.rows(-1, 1), Error);
}

TEST(Tensor, UniqueWhenNobodyElseHoldsIt) {
  Tensor tensor = counting(Shape{4});
  EXPECT_TRUE(tensor.unique());
  {
    const Tensor other = tensor;
    EXPECT_FALSE(tensor.unique());
  }
  EXPECT_TRUE(tensor.unique());
  std::vector<float> memory(4);
  EXPECT_FALSE(Tensor::borrow(memory.data(), Shape{4}, DType::fp32).unique());
  EXPECT_THROW(Tensor::borrow(nullptr, Shape{4}, DType::fp32), Error);
}

TEST(Tensor, CopiesAndConverts) {
  const Tensor tensor = counting(Shape{5});
  const Tensor copy = tensor.clone();
  tensor.as<float>()[0] = 9;
  EXPECT_EQ(copy.as<float>()[0], 0.0f);
  EXPECT_EQ(copy.as<float>()[4], 4.0f);
  const Tensor narrow = copy.to(DType::bf16);
  EXPECT_EQ(narrow.dtype(), DType::bf16);
  EXPECT_EQ(narrow.as<bf16>()[3].to_float(), 3.0f);
  EXPECT_EQ(copy.to(DType::fp32).data(), copy.data());
  const Tensor zeros = Tensor::zeros(Shape{7}, DType::int32);
  for (int i = 0; i < 7; ++i) EXPECT_EQ(zeros.as<std::int32_t>()[i], 0);
}

}  // namespace
}  // namespace tessera
