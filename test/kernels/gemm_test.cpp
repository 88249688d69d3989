// SPDX-License-Identifier: Apache-2.0
// Matrix products against a plain fp64 loop.
#include "tessera/kernels/gemm.hpp"

#include <thread>
#include <tuple>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/device/cuda.hpp"

#include "support/device_arrays.hpp"
#include "support/new_workers.hpp"

namespace tessera::kernels {
namespace {

using namespace tessera::testing;

struct Problem {
  std::int64_t m, n, k;
  bool transpose_a = false, transpose_b = false;
  std::int64_t pad_a = 0, pad_b = 0, pad_c = 0;  // extra elements at the end of each row
  float alpha = 1, beta = 0;
  bool bias = false;
  std::int64_t skip = 0;  // elements before the first of every array
};

std::string describe(const Problem& p) {
  return fmt::format("m {} n {} k {} {}{} pads {} {} {} alpha {} beta {} bias {} skip {}", p.m, p.n,
                     p.k, p.transpose_a ? 't' : 'n', p.transpose_b ? 't' : 'n', p.pad_a, p.pad_b,
                     p.pad_c, p.alpha, p.beta, p.bias, p.skip);
}

const unsigned char* skipped(const void* data, std::int64_t elements, DType dtype) {
  return static_cast<const unsigned char*>(data) +
         static_cast<std::size_t>(elements) * size_of(dtype);
}

void run_and_compare(const Problem& p, DType input, DType output, Device device = {}) {
  const std::int64_t a_rows = p.transpose_a ? p.k : p.m, b_rows = p.transpose_b ? p.n : p.k;
  const std::int64_t lda = (p.transpose_a ? p.m : p.k) + p.pad_a;
  const std::int64_t ldb = (p.transpose_b ? p.k : p.n) + p.pad_b;
  const std::int64_t ldc = p.n + p.pad_c;
  const auto a = random_array(input, p.skip + a_rows * lda, 1);
  const auto b = random_array(input, p.skip + b_rows * ldb, 2);
  const auto bias = random_array(input, p.skip + p.n, 3);
  auto c = random_array(output, p.skip + p.m * ldc, 4);
  Doubles expected = c.values();
  const Doubles av = a.values(), bv = b.values(), biasv = bias.values();
  for (std::int64_t i = 0; i < p.m; ++i)
    for (std::int64_t j = 0; j < p.n; ++j) {
      double sum = 0;
      for (std::int64_t l = 0; l < p.k; ++l)
        sum += av[static_cast<std::size_t>(p.skip + (p.transpose_a ? l * lda + i : i * lda + l))] *
               bv[static_cast<std::size_t>(p.skip + (p.transpose_b ? j * ldb + l : l * ldb + j))];
      double& element = expected[static_cast<std::size_t>(p.skip + i * ldc + j)];
      element = double{p.alpha} * sum + double{p.beta} * element +
                (p.bias ? biasv[static_cast<std::size_t>(p.skip + j)] : 0.0);
    }
  DeviceArrays arrays(device);
  Gemm args{.a = skipped(arrays.at(a), p.skip, input),
            .b = skipped(arrays.at(b), p.skip, input),
            .c = const_cast<unsigned char*>(skipped(arrays.at(c), p.skip, output)),
            .m = p.m,
            .n = p.n,
            .k = p.k};
  if (p.bias) args.bias = skipped(arrays.at(bias), p.skip, input);
  args.transpose_a = p.transpose_a;
  args.transpose_b = p.transpose_b;
  args.lda = lda;
  args.ldb = ldb;
  args.ldc = ldc;
  args.alpha = p.alpha;
  args.beta = p.beta;
  args.input_type = input;
  args.output_type = output;
  gemm(arrays.stream(), args);
  arrays.fetch();
  expect_close(c, expected, 2, describe(p));
}

struct Types {
  DType input, output;
};

double apply(Activation function, double x) {
  constexpr double kScale = 0.7978845608028654;  // sqrt(2 / pi)
  switch (function) {
    case Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(kScale * (x + 0.044715 * x * x * x)));
    case Activation::gelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    default:
      return x / (1 + std::exp(-x));
  }
}
double derivative(Activation function, double x) {
  constexpr double kStep = 1e-5;
  return (apply(function, x + kStep) - apply(function, x - kStep)) / (2 * kStep);
}

/// a [m, k], b [k, n], packed and with `skip` elements before each; v = a b [+ bias] in fp64.
struct Operands {
  Operands(const Problem& p, Types types, bool transposed_a = false)
      : a(random_array(types.input, p.skip + p.m * p.k, 1)),
        b(random_array(types.input, p.skip + p.k * p.n, 2)),
        bias(random_array(types.input, p.skip + p.n, 3)),
        v(static_cast<std::size_t>(p.m * p.n)) {
    const Doubles av = a.values(), bv = b.values(), biasv = bias.values();
    const auto at = [&](std::int64_t i) { return static_cast<std::size_t>(p.skip + i); };
    for (std::int64_t i = 0; i < p.m * p.n; ++i) {
      const std::int64_t row = i / p.n, column = i % p.n;
      double& sum = v[static_cast<std::size_t>(i)];
      for (std::int64_t l = 0; l < p.k; ++l)
        sum += av[at(transposed_a ? l * p.m + row : row * p.k + l)] * bv[at(l * p.n + column)];
      if (p.bias) sum += biasv[at(column)];
    }
  }
  TypedArray a, b, bias;
  Doubles v;
};

Gemm describe_gemm(const Problem& p, Operands& operands, Types types, DeviceArrays& arrays) {
  Gemm args{.a = skipped(arrays.at(operands.a), p.skip, types.input),
            .b = skipped(arrays.at(operands.b), p.skip, types.input),
            .c = nullptr,
            .m = p.m,
            .n = p.n,
            .k = p.k};
  if (p.bias) args.bias = skipped(arrays.at(operands.bias), p.skip, types.input);
  args.beta = p.beta;
  args.input_type = types.input;
  args.output_type = types.output;
  return args;
}

Doubles without_first(const TypedArray& array, std::int64_t skip) {
  const Doubles values = array.values();
  return {values.begin() + skip, values.end()};
}

void expect_values(const TypedArray& actual, std::int64_t skip, const Doubles& expected,
                   const std::string& what) {
  expect_close(TypedArray(actual.dtype(), without_first(actual, skip)), expected, 4, what);
}

/// There and back: c = f(v), then c = v f'(argument) with the argument that was kept.
void check_activation(const Problem& p, Activation function, Types types, Device device) {
  Operands operands(p, types);
  TypedArray c(types.output, static_cast<std::size_t>(p.skip + p.m * p.n)), argument = c;
  DeviceArrays arrays(device);
  const auto place = [&](TypedArray& array) {
    return const_cast<unsigned char*>(skipped(arrays.at(array), p.skip, types.output));
  };
  Gemm args = describe_gemm(p, operands, types, arrays);
  args.c = place(c);
  args.epilogue = GemmEpilogue::activation;
  args.function = function;
  args.argument = place(argument);
  gemm(arrays.stream(), args);
  arrays.fetch();
  Doubles expected = operands.v;
  for (double& x : expected) x = apply(function, x);
  expect_values(argument, p.skip, operands.v, "argument: " + describe(p));
  expect_values(c, p.skip, expected, "f: " + describe(p));
  if (p.bias) return;
  args.epilogue = GemmEpilogue::activation_gradient;
  gemm(arrays.stream(), args);
  arrays.fetch();
  const Doubles kept = without_first(argument, p.skip);
  for (std::size_t i = 0; i < expected.size(); ++i)
    expected[i] = operands.v[i] * derivative(function, kept[i]);
  expect_values(c, p.skip, expected, "gradient: " + describe(p));
}

void check_sums(const Problem& p, bool of_a, Types types, Device device) {
  Operands operands(p, types, true);
  const std::int64_t width = of_a ? p.m : p.n;
  auto c = random_array(types.output, p.skip + p.m * p.n, 4);
  auto sums = random_array(types.output, p.skip + width, 5);
  Doubles expected = without_first(sums, p.skip), product = without_first(c, p.skip);
  const Doubles summed = without_first(of_a ? operands.a : operands.b, p.skip);
  for (std::size_t i = 0; i < product.size(); ++i)
    product[i] = operands.v[i] + double{p.beta} * product[i];
  for (std::int64_t i = 0; i < width; ++i) {
    double& sum = expected[static_cast<std::size_t>(i)];
    sum *= double{p.beta};
    for (std::int64_t l = 0; l < p.k; ++l) sum += summed[static_cast<std::size_t>(l * width + i)];
  }
  DeviceArrays arrays(device);
  Gemm args = describe_gemm(p, operands, types, arrays);
  args.transpose_a = true;
  args.c = const_cast<unsigned char*>(skipped(arrays.at(c), p.skip, types.output));
  (of_a ? args.a_sums : args.b_sums) =
      const_cast<unsigned char*>(skipped(arrays.at(sums), p.skip, types.output));
  gemm(arrays.stream(), args);
  arrays.fetch();
  expect_values(c, p.skip, product, "product: " + describe(p));
  expect_values(sums, p.skip, expected, "sums: " + describe(p));
}

class GemmTest : public ::testing::TestWithParam<std::tuple<Device, Types>> {
 protected:
  void check(const Problem& problem) {
    const auto [device, types] = GetParam();
    run_and_compare(problem, types.input, types.output, device);
  }
};

TEST_P(GemmTest, OddSizesInEveryLayout) {
  for (const std::int64_t m : {1, 3, 17, 65})
    for (const std::int64_t n : {1, 3, 17, 65})
      for (const std::int64_t k : {1, 3, 17, 65})
        for (const int layout : {0, 1, 2, 3})
          check(
              {.m = m, .n = n, .k = k, .transpose_a = layout > 1, .transpose_b = layout % 2 == 1});
}

TEST_P(GemmTest, RowStrides) {
  for (const int layout : {0, 1, 2, 3})
    check({.m = 17,
           .n = 33,
           .k = 65,
           .transpose_a = layout > 1,
           .transpose_b = layout % 2 == 1,
           .pad_a = 5,
           .pad_b = 16,
           .pad_c = 3});
}

TEST_P(GemmTest, AlphaBetaBias) {
  for (const float alpha : {1.0f, -0.375f})
    for (const float beta : {0.0f, 1.0f})
      for (const bool bias : {false, true})
        for (const std::int64_t m : {1, 40})
          check({.m = m, .n = 48, .k = 30, .pad_c = 2, .alpha = alpha, .beta = beta, .bias = bias});
}

TEST_P(GemmTest, LargerThanItsBlocks) {
  check({.m = 300, .n = 500, .k = 1500, .transpose_b = true});
  check({.m = 1, .n = 3000, .k = 700, .transpose_b = true, .bias = true});
  check({.m = 200, .n = 100, .k = 2000, .transpose_a = true, .beta = 1});
  check({.m = 1100, .n = 10, .k = 20, .pad_a = 1, .pad_c = 3, .beta = 1, .bias = true});
  check({.m = 1100, .n = 10, .k = 20, .transpose_a = true, .pad_a = 1});
}

TEST_P(GemmTest, ArraysThatBeginAnywhere) {
  for (const std::int64_t skip : {1, 2, 4, 8, 16})
    for (const std::int64_t n : {32, 33})
      check({.m = 24, .n = n, .k = 40, .transpose_b = true, .bias = true, .skip = skip});
}

TEST_P(GemmTest, EmptySums) {
  check({.m = 3, .n = 5, .k = 0});
  check({.m = 5, .n = 3, .k = 0, .transpose_a = true, .transpose_b = true, .pad_c = 2});
  check({.m = 3, .n = 5, .k = 0, .beta = 1, .bias = true});
  check({.m = 0, .n = 5, .k = 2});
  check({.m = 3, .n = 0, .k = 2});
}

// In sizes and at places that cuBLASLt has the epilogue for, and others.
TEST_P(GemmTest, EpiloguesAreTheProductThenTheFunction) {
  const auto [device, types] = GetParam();
  for (const Activation function : {Activation::gelu_tanh, Activation::gelu, Activation::silu})
    for (const bool bias : {false, true})
      for (const std::int64_t n : {24, 40, 33})
        for (const std::int64_t skip : {0, 1})
          check_activation({.m = 19, .n = n, .k = 48, .bias = bias, .skip = skip}, function, types,
                           device);
  check_activation({.m = 8, .n = 16, .k = 0, .bias = true}, Activation::gelu_tanh, types, device);
  check_activation({.m = 0, .n = 16, .k = 8}, Activation::gelu_tanh, types, device);
}

TEST_P(GemmTest, SumsOfAnOperandAreColumnSums) {
  const auto [device, types] = GetParam();
  for (const bool of_a : {false, true})
    for (const float beta : {0.0f, 1.0f})
      for (const std::int64_t width : {32, 40, 33})
        for (const std::int64_t skip : {0, 1})
          check_sums({.m = width, .n = width + 8, .k = 51, .beta = beta, .skip = skip}, of_a, types,
                     device);
  check_sums({.m = 16, .n = 16, .k = 0}, true, types, device);
  check_sums({.m = 0, .n = 16, .k = 3}, false, types, device);
}

TEST_P(GemmTest, FromSeveralThreadsAtOnce) {
  std::vector<std::thread> workers;
  for (int i = 0; i < 4; ++i)
    workers.emplace_back([&, i] {
      for (int round = 0; round < 5; ++round)
        check({.m = 20 + i % 2, .n = 30, .k = 40 + round, .transpose_b = true});
    });
  for (auto& worker : workers) worker.join();
}

std::string types_name(const ::testing::TestParamInfo<std::tuple<Device, Types>>& info) {
  const auto [device, types] = info.param;
  return fmt::format("{}_{}_to_{}", device_name(device), to_string(types.input),
                     to_string(types.output));
}

INSTANTIATE_TEST_SUITE_P(Types, GemmTest,
                         ::testing::Combine(::testing::ValuesIn(kernel_devices()),
                                            ::testing::Values(Types{DType::fp32, DType::fp32},
                                                              Types{DType::bf16, DType::fp32},
                                                              Types{DType::bf16, DType::bf16},
                                                              Types{DType::fp16, DType::fp32},
                                                              Types{DType::fp16, DType::fp16})),
                         types_name);

// More shapes than the cache of primitives holds, twice: entries leave and come back.
TEST(Gemm, ManyShapes) {
  for (int round = 0; round < 2; ++round)
    for (std::int64_t k = 1; k <= 300; ++k)
      run_and_compare({.m = 2, .n = 3, .k = k}, DType::fp32, DType::fp32);
}

TEST(Gemm, MeasuresCandidatesWhenAsked) {
  const GemmOptions before = gemm_options();
  set_gemm_options({.tf32 = false, .measure = true});
  for (const Device device : kernel_devices())
    for (int round = 0; round < 2; ++round)
      for (const std::int64_t skip : {0, 1})
        for (const float beta : {0.0f, 1.0f})
          run_and_compare(
              {.m = 24, .n = 32, .k = 40, .pad_c = 8, .beta = beta, .bias = true, .skip = skip},
              DType::fp32, DType::fp32, device);
  set_gemm_options(before);
}

// 3 bits too many for TF32: its products must differ, and only on GPUs, when it is asked for.
TEST(Gemm, Tf32OnlyWhenAsked) {
  const GemmOptions before = gemm_options();
  EXPECT_FALSE(before.tf32);
  for (const Device device : kernel_devices())
    for (const bool tf32 : {false, true}) {
      set_gemm_options({.tf32 = tf32, .measure = false});
      const TypedArray a(DType::fp32, Doubles(256, 1 + 0x1p-13)),
          b = filled_array(DType::fp32, 256, 1);
      auto c = filled_array(DType::fp32, 256, 0);
      DeviceArrays arrays(device);
      gemm(arrays.stream(),
           {.a = arrays.at(a), .b = arrays.at(b), .c = arrays.at(c), .m = 16, .n = 16, .k = 16});
      arrays.fetch();
      if (tf32 && !device.is_cpu())
        EXPECT_EQ(c.values()[0], 16);
      else
        EXPECT_EQ(c.values()[0], 16 + 0x1p-9);
    }
  set_gemm_options(before);
}

TEST(Gemm, CountsFlops) {
  const std::int64_t before = flop_count();
  run_and_compare({.m = 3, .n = 5, .k = 7}, DType::fp32, DType::fp32);
  run_and_compare({.m = 3, .n = 5, .k = 0}, DType::fp32, DType::fp32);
  EXPECT_EQ(flop_count() - before, 2 * 3 * 5 * 7);
}

template <typename Half>
void expect_nan_comes_through() {
  constexpr DType type = dtype_of<Half>;
  auto a = filled_array(type, 4, 1), b = filled_array(type, 4, 1);
  auto c = filled_array(type, 4, 0);
  a.as<Half>()[1] = Half::from_float(std::numeric_limits<float>::quiet_NaN());
  gemm(Stream{}, {.a = a.data(),
                  .b = b.data(),
                  .c = c.data(),
                  .m = 2,
                  .n = 2,
                  .k = 2,
                  .input_type = type,
                  .output_type = type});
  EXPECT_TRUE(std::isnan(c.values()[0]));
  EXPECT_EQ(c.values()[2], 2);
}

TEST(Gemm, NanComesThrough) {
  expect_nan_comes_through<bf16>();
  expect_nan_comes_through<fp16>();
}

// What loss scaling relies on: sums are in fp32, and only a result beyond fp16's 65504 is infinite.
TEST(Gemm, Fp16OverflowsInTheResultOnly) {
  const auto a = TypedArray(DType::fp16, Doubles{60000, 60000, 60000, 60000});
  const auto b = TypedArray(DType::fp16, Doubles{1, 1, -0.5, 1});  // columns (1, -0.5), (1, 1)
  auto c = filled_array(DType::fp16, 4, 0);
  gemm(Stream{}, {.a = a.data(),
                  .b = b.data(),
                  .c = c.data(),
                  .m = 2,
                  .n = 2,
                  .k = 2,
                  .input_type = DType::fp16,
                  .output_type = DType::fp16});
  EXPECT_EQ(c.values()[0], 30000);
  EXPECT_EQ(c.values()[1], std::numeric_limits<double>::infinity());
}

Code code_of(const Gemm& args, const Stream& stream = {}) {
  try {
    gemm(stream, args);
  } catch (const Error& error) {
    return error.code();
  }
  return Code::internal;
}

TEST(Gemm, SmallProductsWakeNoWorkers) {
  const auto workers = [](std::int64_t size, DType dtype) {
    const auto a = random_array(dtype, size * size, 1), b = random_array(dtype, size * size, 2);
    auto c = random_array(dtype, size * size, 3);
    return new_workers([&] {
      gemm({}, {.a = a.data(),
                .b = b.data(),
                .c = c.data(),
                .m = size,
                .n = size,
                .k = size,
                .input_type = dtype,
                .output_type = dtype});
    });
  };
  for (const DType dtype : {DType::fp32, DType::fp16}) {
    EXPECT_EQ(workers(8, dtype), 0) << to_string(dtype);
    EXPECT_EQ(workers(64, dtype), 0) << to_string(dtype);
    EXPECT_EQ(workers(256, dtype), 1) << to_string(dtype);
  }
}

TEST(Gemm, RefusesWhatItCannotDo) {
  float data[16] = {};
  const Gemm good{.a = data, .b = data, .c = data + 8, .m = 2, .n = 2, .k = 2};
  Gemm args = good;
  args.lda = 1;
  EXPECT_EQ(code_of(args), Code::invalid_argument);
  args = good;
  args.beta = 0.5f;
  EXPECT_EQ(code_of(args), Code::invalid_argument);
  args = good;
  args.k = -1;
  EXPECT_EQ(code_of(args), Code::invalid_argument);
  args = good;
  args.epilogue = GemmEpilogue::activation;
  EXPECT_EQ(code_of(args), Code::invalid_argument);  // without an argument
  args.argument = data + 12;
  EXPECT_EQ(code_of(args), Code::internal);  // none: it is fine
  args.beta = 1;
  EXPECT_EQ(code_of(args), Code::invalid_argument);
  args.beta = 0;
  args.b_sums = data + 6;
  EXPECT_EQ(code_of(args), Code::invalid_argument);
  args = good;
  args.a_sums = data + 6;
  EXPECT_EQ(code_of(args), Code::invalid_argument);  // of an operand that is not transposed
  args = good;
  args.output_type = DType::bf16;
  EXPECT_EQ(code_of(args), Code::not_supported);
  args = good;
  args.input_type = DType::fp64;
  EXPECT_EQ(code_of(args), Code::not_supported);
  if (cuda_build_version().empty()) {
    EXPECT_EQ(code_of(good, Stream({DeviceType::cuda, 0}, nullptr)), Code::not_supported);
  }
}

}  // namespace
}  // namespace tessera::kernels
