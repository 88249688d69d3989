// SPDX-License-Identifier: Apache-2.0
// Attention against a plain fp64 computation that keeps the whole matrix of probabilities.
#include "tessera/kernels/attention.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/kernels/gemm.hpp"

#include "kernels/attention_case.hpp"
#include "support/new_workers.hpp"

namespace tessera::kernels {
namespace {

using namespace tessera::testing;
using namespace tessera::testing::attention;

const Problem kProblems[] = {
    {.batch = 1, .heads = 1, .kv_heads = 1, .queries = 1, .keys = 1, .head_dim = 1},
    {.batch = 2,
     .heads = 2,
     .kv_heads = 2,
     .queries = 3,
     .keys = 3,
     .head_dim = 3,
     .row_pad = 2,
     .batch_pad = 5},
    {.batch = 1, .heads = 2, .kv_heads = 2, .queries = 17, .keys = 17, .head_dim = 17},
    {.batch = 1,
     .heads = 2,
     .kv_heads = 1,
     .queries = 65,
     .keys = 65,
     .head_dim = 65,
     .row_pad = 3},
    {.batch = 1, .heads = 1, .kv_heads = 1, .queries = 300, .keys = 300, .head_dim = 64},
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 64, .keys = 128, .head_dim = 32},
    {.batch = 1, .heads = 2, .kv_heads = 2, .queries = 70, .keys = 201, .head_dim = 20},
    {.batch = 1, .heads = 2, .kv_heads = 1, .queries = 66, .keys = 66, .head_dim = 256},
    {.batch = 1,
     .heads = 6,
     .kv_heads = 2,
     .queries = 80,
     .keys = 33,
     .head_dim = 16,
     .causal = false},
    {.batch = 1,
     .heads = 2,
     .kv_heads = 2,
     .queries = 130,
     .keys = 130,
     .head_dim = 8,
     .causal = false},
    {.batch = 2,
     .heads = 2,
     .kv_heads = 1,
     .queries = 67,
     .keys = 93,
     .head_dim = 16,
     .dropout = 0.3f},
    {.batch = 1,
     .heads = 1,
     .kv_heads = 1,
     .queries = 5,
     .keys = 5,
     .head_dim = 4,
     .dropout = 0.5f},
    // One new token after a cache, as in generation.
    {.batch = 3,
     .heads = 4,
     .kv_heads = 2,
     .queries = 1,
     .keys = 150,
     .head_dim = 64,
     .row_pad = 1,
     .batch_pad = 9},
    {.batch = 1, .heads = 2, .kv_heads = 2, .queries = 2, .keys = 65, .head_dim = 33},
    // Long caches, which a GPU splits among blocks: whole vectors, then odd sizes.
    {.batch = 1, .heads = 6, .kv_heads = 2, .queries = 1, .keys = 1100, .head_dim = 128},
    {.batch = 2,
     .heads = 4,
     .kv_heads = 2,
     .queries = 3,
     .keys = 777,
     .head_dim = 19,
     .dropout = 0.1f,
     .row_pad = 1},
    // Whole blocks of random words in a row.
    {.batch = 2,
     .heads = 4,
     .kv_heads = 2,
     .queries = 75,
     .keys = 140,
     .head_dim = 16,
     .dropout = 0.3f},
    {.batch = 1,
     .heads = 6,
     .kv_heads = 2,
     .queries = 3,
     .keys = 600,
     .head_dim = 8,
     .dropout = 0.2f},
    // Tiles that are cut on every side.
    {.batch = 1, .heads = 4, .kv_heads = 1, .queries = 97, .keys = 131, .head_dim = 96},
    {.batch = 1,
     .heads = 3,
     .kv_heads = 1,
     .queries = 3,
     .keys = 40,
     .head_dim = 80,
     .causal = false,
     .dropout = 0.25f},
    // Rows of different lengths, with NaN behind: none, one, odd, of whole tiles, all.
    {.batch = 5,
     .heads = 2,
     .kv_heads = 2,
     .queries = 150,
     .keys = 150,
     .head_dim = 64,
     .lengths = {150, 0, 1, 128, 77}},
    {.batch = 3,
     .heads = 4,
     .kv_heads = 2,
     .queries = 140,
     .keys = 140,
     .head_dim = 24,
     .causal = false,
     .lengths = {64, 140, 3}},
    {.batch = 2,
     .heads = 2,
     .kv_heads = 1,
     .queries = 67,
     .keys = 67,
     .head_dim = 19,
     .causal = false,
     .dropout = 0.3f,
     .row_pad = 3,
     .batch_pad = 5,
     .lengths = {66, 21}},
    {.batch = 2,
     .heads = 2,
     .kv_heads = 2,
     .queries = 68,
     .keys = 68,
     .head_dim = 16,
     .dropout = 0.2f,
     .lengths = {67, 32}},
    {.batch = 2,
     .heads = 2,
     .kv_heads = 1,
     .queries = 70,
     .keys = 70,
     .head_dim = 256,
     .lengths = {33, 70}},
    {.batch = 3,
     .heads = 6,
     .kv_heads = 2,
     .queries = 3,
     .keys = 3,
     .head_dim = 8,
     .lengths = {3, 0, 2}},
    {.batch = 3,
     .heads = 6,
     .kv_heads = 2,
     .queries = 20,
     .keys = 20,
     .head_dim = 40,
     .causal = false,
     .lengths = {9, 0, 20}},
};

/// The CPU's kernels, and our own of a GPU.
class AttentionTest : public ::testing::TestWithParam<std::tuple<Device, DType>> {
 protected:
  void SetUp() override { set_attention_kernels(AttentionKernels::own); }
  void TearDown() override { set_attention_kernels(AttentionKernels::automatic); }
  Device device() const { return std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }
};

TEST_P(AttentionTest, Forward) {
  for (const Problem& p : kProblems) expect_right_forward(p, dtype(), device());
}

TEST_P(AttentionTest, Backward) {
  for (const Problem& p : kProblems) expect_right_backward(p, dtype(), device());
}

TEST_P(AttentionTest, SameBitsForAnyNumberOfThreads) {
  const Problem p{.batch = 2,
                  .heads = 4,
                  .kv_heads = 2,
                  .queries = 130,
                  .keys = 140,
                  .head_dim = 24,
                  .dropout = 0.1f};
  Arrays two(p, dtype(), device()), one(p, dtype(), device());
  const auto run = [&](Arrays& a, int count) {
    const WithThreads guard(count);
    a.run(backward_args(p, a));
  };
  run(two, 2);
  run(one, 1);
  expect_same_bits(two, one);
}

TEST(Attention, OfFewPositionsWakesNoWorkers) {
  const auto workers = [](std::int64_t positions, std::int64_t keys) {
    const Problem p{
        .batch = 2, .heads = 2, .kv_heads = 2, .queries = positions, .keys = keys, .head_dim = 8};
    Arrays a(p, DType::fp32, Device{});
    return new_workers([&] { a.run(backward_args(p, a)); });
  };
  EXPECT_EQ(workers(1, 60), 0);
  EXPECT_EQ(workers(60, 60), 0);
  EXPECT_EQ(workers(200, 200), 1);
}

TEST_P(AttentionTest, TakesThePlaceOfItsDropoutFromMemory) {
  for (const std::int64_t keys : {20, 21}) {
    const Problem p{.batch = 2,
                    .heads = 2,
                    .kv_heads = 2,
                    .queries = 20,
                    .keys = keys,
                    .head_dim = 8,
                    .dropout = 0.3f};
    Arrays given(p, dtype(), device()), read(p, dtype(), device());
    AttentionBackward args = backward_args(p, given);
    args.forward.dropout_stream = mix(12, 7);
    args.forward.batch_offset = 3 + 6;
    given.run(args);
    const PassVariables values{.step = 12, .first_row = 6};
    TypedArray variables(DType::fp64, sizeof(values) / sizeof(double));
    std::memcpy(variables.data(), &values, sizeof(values));
    args = backward_args(p, read);
    args.forward.variables = static_cast<const PassVariables*>(read.at(variables));
    read.run(args);
    expect_same_bits(given, read);
  }
}

/// How many elements in the padding are not exactly 0.
std::int64_t left_in_padding(const Problem& p, const TypedArray& array, const Layout& layout,
                             std::int64_t heads, std::int64_t rows) {
  const Doubles values = array.values();
  std::int64_t count = 0;
  for_each_in_padding(p, layout, heads, rows, [&](std::size_t i) { count += values[i] != 0; });
  return count;
}

TEST_P(AttentionTest, LeavesZerosInThePadding) {
  for (const Problem& p : kProblems) {
    if (p.lengths.empty()) continue;
    Arrays a(p, dtype(), device());
    a.run(backward_args(p, a));
    EXPECT_EQ(left_in_padding(p, a.y, a.q_layout, p.heads, p.queries), 0) << describe(p);
    EXPECT_EQ(left_in_padding(p, a.dq, a.q_layout, p.heads, p.queries), 0) << describe(p);
    EXPECT_EQ(left_in_padding(p, a.dk, a.k_layout, p.kv_heads, p.keys), 0) << describe(p);
    EXPECT_EQ(left_in_padding(p, a.dv, a.k_layout, p.kv_heads, p.keys), 0) << describe(p);
    for (std::int64_t row = 0; row < p.batch * p.heads; ++row)
      for (std::int64_t t = p.filled(row / p.heads, p.queries); t < p.queries; ++t)
        EXPECT_EQ(a.lse.as<float>()[row * p.queries + t], 0) << describe(p);
  }
}

/// To batch entry b.
template <typename T>
void move_to_entry(T& pointer, std::int64_t b, std::int64_t stride, DType dtype) {
  using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<T>>, const char, char>;
  pointer = static_cast<Byte*>(pointer) + static_cast<std::size_t>(b * stride) * size_of(dtype);
}

TEST_P(AttentionTest, RowsWithLengthsHaveTheBitsOfTheirSequenceAlone) {
  for (const bool causal : {true, false}) {
    const Problem p{.batch = 3,
                    .heads = 4,
                    .kv_heads = 2,
                    .queries = 150,
                    .keys = 150,
                    .head_dim = 24,
                    .causal = causal,
                    .lengths = {70, 150, 5}};
    Arrays together(p, dtype(), device()), alone(p, dtype(), device());
    together.run(backward_args(p, together));
    for (std::int64_t b = 0; b < p.batch; ++b) {
      AttentionBackward args = backward_args(p, alone);
      AttentionForward& f = args.forward;
      const auto queries = [&](auto& x) { move_to_entry(x, b, f.q_batch_stride, dtype()); };
      const auto keys = [&](auto& x) { move_to_entry(x, b, f.k_batch_stride, dtype()); };
      queries(f.q);
      queries(f.y);
      queries(args.dy);
      queries(args.dq);
      keys(f.k);
      keys(f.v);
      keys(args.dk);
      keys(args.dv);
      f.batch = 1;
      f.queries = f.keys = p.filled(b, p.queries);
      f.lengths = nullptr;
      alone.run(args);
      for (auto [a, other] :
           {std::pair{&together.y, &alone.y}, std::pair{&together.dq, &alone.dq},
            std::pair{&together.dk, &alone.dk}, std::pair{&together.dv, &alone.dv}}) {
        const bool of_queries = a == &together.y || a == &together.dq;
        const Layout& layout = of_queries ? together.q_layout : together.k_layout;
        const std::size_t first = static_cast<std::size_t>(b * layout.batch) * size_of(dtype());
        const auto bytes = static_cast<std::size_t>(f.queries * layout.row) * size_of(dtype());
        EXPECT_EQ(std::memcmp(a->as<char>() + first, other->as<char>() + first, bytes), 0)
            << "row " << b << " causal " << causal;
      }
    }
  }
}

TEST_P(AttentionTest, TakesPossibleLengthsOnGpus) {
  if (device().is_cpu()) GTEST_SKIP() << "the CPU refuses others";
  Problem p{.batch = 2,
            .heads = 2,
            .kv_heads = 2,
            .queries = 20,
            .keys = 20,
            .head_dim = 8,
            .lengths = {0, 20}};
  Arrays expected(p, dtype(), device()), actual(p, dtype(), device());
  expected.run(backward_args(p, expected));
  p.lengths = {-3, 1000000};
  std::ranges::copy(p.lengths, actual.lengths.as<std::int32_t>());
  actual.run(backward_args(p, actual));
  EXPECT_EQ(actual.y, expected.y);
  EXPECT_EQ(actual.lse, expected.lse);
  EXPECT_EQ(actual.dq, expected.dq);
  EXPECT_EQ(actual.dk, expected.dk);
  EXPECT_EQ(actual.dv, expected.dv);
}

TEST_P(AttentionTest, ReadsAFusedProjectionInPlace) {
  const std::int64_t tokens = 70, heads = 2, head_dim = 16, width = heads * head_dim;
  const Problem p{.batch = 2,
                  .heads = heads,
                  .kv_heads = heads,
                  .queries = tokens,
                  .keys = tokens,
                  .head_dim = head_dim};
  Arrays apart(p, dtype(), device());
  AttentionBackward args = backward_args(p, apart);
  apart.run(args);

  const std::size_t size = size_of(dtype());
  TypedArray fused(dtype(), static_cast<std::size_t>(2 * tokens * 3 * width));
  TypedArray gradient = fused, y = apart.y, lse = apart.lse;
  const auto copy_row = [&](TypedArray& array, std::int64_t row, std::int64_t part) {
    return static_cast<unsigned char*>(array.data()) +
           static_cast<std::size_t>((row * 3 + part) * width) * size;
  };
  const auto bytes = static_cast<std::size_t>(width) * size;
  TypedArray* parts[] = {&apart.q, &apart.k, &apart.v};
  for (std::int64_t r = 0; r < 2 * tokens; ++r)
    for (std::int64_t part = 0; part < 3; ++part)
      std::memcpy(
          copy_row(fused, r, part),
          static_cast<unsigned char*>(parts[part]->data()) + static_cast<std::size_t>(r) * bytes,
          bytes);
  DeviceArrays on_device(device());
  const auto part_of = [&](TypedArray& array, std::int64_t part) {
    return static_cast<unsigned char*>(on_device.at(array)) +
           static_cast<std::size_t>(part * width) * size;
  };
  args.forward.q = part_of(fused, 0);
  args.forward.k = part_of(fused, 1);
  args.forward.v = part_of(fused, 2);
  args.forward.y = on_device.at(y);
  args.forward.lse = static_cast<float*>(on_device.at(lse));
  args.dy = on_device.at(apart.dy);
  args.forward.q_row_stride = args.forward.k_row_stride = args.forward.v_row_stride = 3 * width;
  args.forward.q_batch_stride = args.forward.k_batch_stride = args.forward.v_batch_stride =
      tokens * 3 * width;
  args.dq = part_of(gradient, 0);
  args.dk = part_of(gradient, 1);
  args.dv = part_of(gradient, 2);
  attention_forward(on_device.stream(), args.forward);
  attention_backward(on_device.stream(), args);
  on_device.fetch();
  EXPECT_EQ(y, apart.y);
  TypedArray* gradients[] = {&apart.dq, &apart.dk, &apart.dv};
  for (std::int64_t r = 0; r < 2 * tokens; ++r)
    for (std::int64_t part = 0; part < 3; ++part)
      ASSERT_EQ(std::memcmp(copy_row(gradient, r, part),
                            static_cast<unsigned char*>(gradients[part]->data()) +
                                static_cast<std::size_t>(r) * bytes,
                            bytes),
                0)
          << "row " << r << " part " << part;
}

TEST_P(AttentionTest, NanComesThrough) {
  for (const std::int64_t queries : {1, 40}) {
    const Problem p{
        .batch = 1, .heads = 1, .kv_heads = 1, .queries = queries, .keys = 40, .head_dim = 8};
    Arrays a(p, dtype(), device());
    Doubles keys = a.k.values();
    keys[static_cast<std::size_t>(39 * 8)] = std::numeric_limits<double>::quiet_NaN();
    a.k = TypedArray(dtype(), keys);
    a.run(forward_args(p, a));
    const Doubles y = a.y.values();
    for (std::size_t i = 0; i < y.size(); ++i)
      EXPECT_EQ(std::isnan(y[i]), i / 8 == static_cast<std::size_t>(queries - 1)) << i;
  }
}

std::string test_name(const ::testing::TestParamInfo<std::tuple<Device, DType>>& info) {
  return device_name(std::get<0>(info.param)) + "_" + to_string(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(Types, AttentionTest,
                         ::testing::Combine(::testing::ValuesIn(kernel_devices()), kernel_types()),
                         test_name);

// The reference's own gradients, which the kernels are held against.
TEST(AttentionReference, GradientsMatchNumericDifferences) {
  Problem whole{.batch = 1,
                .heads = 2,
                .kv_heads = 1,
                .queries = 3,
                .keys = 4,
                .head_dim = 2,
                .dropout = 0.2f};
  Problem padded = whole;
  padded.batch = padded.queries = 4;
  padded.lengths = {4, 0, 1, 3};
  Problem bidirectional = whole, padded_bidirectional = padded;
  bidirectional.causal = padded_bidirectional.causal = false;
  for (const Problem& p : {whole, padded, bidirectional, padded_bidirectional}) {
    Arrays a(p, DType::fp32);
    const AttentionForward args = forward_args(p, a);
    const auto numbers = [](const TypedArray& array) {  // zeros for the padding's NaN
      Doubles values = array.values();
      for (double& x : values) x = std::isnan(x) ? 0 : x;
      return values;
    };
    const Doubles q = numbers(a.q), k = numbers(a.k), v = numbers(a.v), dy = numbers(a.dy);
    Reference reference(p, args, a), other(p, args, a);
    reference.backward(q, k, v, dy);
    const auto loss = [&](const Doubles& q_at, const Doubles& k_at, const Doubles& v_at) {
      other.forward(q_at, k_at, v_at);
      return dot(other.y, dy);
    };
    const auto by_q = numeric_gradient([&](const Doubles& x) { return loss(x, k, v); }, q);
    const auto by_k = numeric_gradient([&](const Doubles& x) { return loss(q, x, v); }, k);
    const auto by_v = numeric_gradient([&](const Doubles& x) { return loss(q, k, x); }, v);
    EXPECT_LT(relative_error(reference.dq, by_q), 1e-8);
    EXPECT_LT(relative_error(reference.dk, by_k), 1e-8);
    EXPECT_LT(relative_error(reference.dv, by_v), 1e-8);
  }
}

TEST(Attention, CountsFlopsWithoutTheMask) {
  const Problem p{.batch = 2, .heads = 3, .kv_heads = 3, .queries = 5, .keys = 7, .head_dim = 4};
  Arrays a(p, DType::fp32);
  const std::int64_t before = flop_count();
  attention_forward({}, forward_args(p, a));
  const std::int64_t between = flop_count();
  attention_backward({}, backward_args(p, a));
  EXPECT_EQ(between - before, 4 * 2 * 3 * 5 * 7 * 4);
  EXPECT_EQ(flop_count() - between, 8 * 2 * 3 * 5 * 7 * 4);
}

TEST(Attention, RefusesImpossibleSizes) {
  const Problem good{.batch = 1, .heads = 4, .kv_heads = 2, .queries = 2, .keys = 2, .head_dim = 4};
  Arrays a(good, DType::fp32);
  const auto code_of = [&](auto change) {
    AttentionForward args = forward_args(good, a);
    change(args);
    try {
      attention_forward({}, args);
    } catch (const Error& error) {
      return error.code();
    }
    return Code::internal;
  };
  EXPECT_EQ(code_of([](auto& args) { args.kv_heads = 3; }), Code::invalid_argument);
  EXPECT_EQ(code_of([](auto& args) { args.head_dim = 257; }), Code::not_supported);
  EXPECT_EQ(code_of([](auto& args) { args.queries = 3; }), Code::invalid_argument);
  EXPECT_EQ(code_of([](auto& args) { args.dropout = 1; }), Code::invalid_argument);
  EXPECT_EQ(code_of([](auto& args) { args.dtype = DType::fp64; }), Code::not_supported);
  const std::int32_t long_one[] = {3}, negative[] = {-1}, good_one[] = {1};
  EXPECT_EQ(code_of([&](auto& args) { args.lengths = long_one; }), Code::invalid_argument);
  EXPECT_EQ(code_of([&](auto& args) { args.lengths = negative; }), Code::invalid_argument);
  const auto other_sizes = [&](auto& args) {
    args.queries = 1;
    args.lengths = good_one;
  };
  EXPECT_EQ(code_of(other_sizes), Code::invalid_argument);
}

}  // namespace
}  // namespace tessera::kernels
