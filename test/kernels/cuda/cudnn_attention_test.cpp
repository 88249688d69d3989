// SPDX-License-Identifier: Apache-2.0
// Attention by cuDNN against the plain computation, in every shape and layout that models use.
#include <algorithm>
#include <tuple>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/kernels/attention.hpp"

#include "kernels/attention_case.hpp"
#include "kernels/cuda/cudnn_cases.hpp"
#include "support/cuda_testing.hpp"

namespace tessera::kernels {
namespace {

using namespace tessera::testing;
using namespace tessera::testing::attention;

/// The choice of kernels while it lives.
class WithKernels {
 public:
  explicit WithKernels(AttentionKernels kernels) { set_attention_kernels(kernels); }
  WithKernels(const WithKernels&) = delete;
  WithKernels& operator=(const WithKernels&) = delete;
  ~WithKernels() { set_attention_kernels(before_); }

 private:
  AttentionKernels before_ = attention_kernels();
};

class CudnnAttention : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    TESSERA_NEEDS_GPU();
    if (cudnn_version().empty()) GTEST_SKIP() << "this build has no cuDNN";
  }
};

TEST_P(CudnnAttention, Forward) {
  const WithKernels cudnn(AttentionKernels::cudnn);
  for (const Problem& p : kCudnnCases) expect_right_forward(p, GetParam(), test::gpu());
}

TEST_P(CudnnAttention, Backward) {
  const WithKernels cudnn(AttentionKernels::cudnn);
  for (const Problem& p : kCudnnCases) expect_right_backward(p, GetParam(), test::gpu());
}

TEST_P(CudnnAttention, SameBitsEachTimeAndWithoutLse) {
  const WithKernels cudnn(AttentionKernels::cudnn);
  const Problem p{
      .batch = 2, .heads = 4, .kv_heads = 2, .queries = 192, .keys = 192, .head_dim = 64};
  Arrays first(p, GetParam(), test::gpu()), second(p, GetParam(), test::gpu());
  first.run(backward_args(p, first));
  second.run(backward_args(p, second));
  expect_same_bits(first, second);
  Arrays third(p, GetParam(), test::gpu());
  AttentionForward args = forward_args(p, third);
  args.lse = nullptr;
  third.run(args);
  EXPECT_EQ(first.y, third.y);
}

/// What one pass keeps, the other's kernels can take.
TEST_P(CudnnAttention, PassesOfBothKindsFitTogether) {
  const Problem whole{
      .batch = 2, .heads = 4, .kv_heads = 2, .queries = 96, .keys = 96, .head_dim = 64};
  Problem padded = whole;
  padded.lengths = {70, 11};
  using enum AttentionKernels;
  for (const auto& [p, forward, backward] :
       {std::tuple{whole, cudnn, own}, std::tuple{whole, own, cudnn},
        std::tuple{padded, cudnn, own}, std::tuple{padded, own, cudnn}}) {
    Arrays a(p, GetParam(), test::gpu());
    const AttentionBackward args = backward_args(p, a);
    {
      const WithKernels kernels(forward);
      attention_forward(a.on_device.stream(), args.forward);
    }
    const WithKernels kernels(backward);
    attention_backward(a.on_device.stream(), args);
    a.on_device.fetch();
    expect_right_gradients(p, a, args.forward, std::string("forward by ") + to_string(forward));
  }
}

TEST_P(CudnnAttention, LeavesZerosInThePaddingAndTakesPossibleLengths) {
  const WithKernels cudnn(AttentionKernels::cudnn);
  Problem p{.batch = 2,
            .heads = 4,
            .kv_heads = 2,
            .queries = 64,
            .keys = 64,
            .head_dim = 16,
            .lengths = {64, 0}};
  Arrays expected(p, GetParam(), test::gpu()), actual(p, GetParam(), test::gpu());
  expected.run(backward_args(p, expected));
  p.lengths = {1000, -3};
  std::ranges::copy(p.lengths, actual.lengths.as<std::int32_t>());
  actual.run(backward_args(p, actual));
  const auto expect = [&](const TypedArray& one, const TypedArray& other, std::int64_t rows,
                          std::int64_t width) {
    EXPECT_EQ(one, other);
    const Doubles values = other.values();
    const auto padding = values.begin() + rows * width;
    EXPECT_EQ(std::count(padding, values.end(), 0.0), rows * width);
  };
  expect(expected.y, actual.y, p.queries, p.heads * p.head_dim);
  expect(expected.lse, actual.lse, p.queries, p.heads);
  expect(expected.dq, actual.dq, p.queries, p.heads * p.head_dim);
  expect(expected.dk, actual.dk, p.keys, p.kv_heads * p.head_dim);
  expect(expected.dv, actual.dv, p.keys, p.kv_heads * p.head_dim);
}

TEST_P(CudnnAttention, SaysWhatItDoesNotTake) {
  const WithKernels cudnn(AttentionKernels::cudnn);
  const auto message = [&](const Problem& p, DType dtype) -> std::string {
    Arrays a(p, dtype, test::gpu());
    try {
      a.run(forward_args(p, a));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::not_supported) << error.what();
      return error.what();
    }
    return "";
  };
  const auto expect = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_NE(text.find("run.attention"), std::string::npos) << text;
  };
  Problem p{.batch = 1, .heads = 2, .kv_heads = 2, .queries = 64, .keys = 64, .head_dim = 16};
  EXPECT_EQ(message(p, GetParam()), "");
  expect(message(p, DType::fp32), "not fp32");
  p.dropout = 0.1f;
  expect(message(p, GetParam()), "dropout");
  p.dropout = 0;
  p.row_pad = 3;
  expect(message(p, GetParam()), "multiples of 16 bytes");
  p.row_pad = 0;
  p.head_dim = 20;
  expect(message(p, GetParam()), "head dimension 20");
  p.head_dim = 16;
  p.queries = 1;
  expect(message(p, GetParam()), "one query");
}

INSTANTIATE_TEST_SUITE_P(Types, CudnnAttention, ::testing::Values(DType::bf16, DType::fp16),
                         [](const auto& type) { return std::string(to_string(type.param)); });

TEST(AttentionKernels, AreRefusedWhereTheBuildHasNone) {
  TESSERA_NEEDS_GPU();
  if (!cudnn_version().empty()) GTEST_SKIP() << "this build has cuDNN";
  const WithKernels cudnn(AttentionKernels::cudnn);
  const Problem p{.batch = 1, .heads = 1, .kv_heads = 1, .queries = 64, .keys = 64, .head_dim = 8};
  Arrays a(p, DType::bf16, test::gpu());
  EXPECT_THROW(a.run(forward_args(p, a)), Error);
}

}  // namespace
}  // namespace tessera::kernels
