// SPDX-License-Identifier: Apache-2.0
// Kernels that wait for memory move hardly more bytes than they have to. With TESSERA_TRAFFIC_TABLE
// the figures go into that file, as rows of a table.
#include "emulation/traffic.hpp"

#include <cstdlib>
#include <fstream>
#include <set>

#include "kernels/cuda/gpu_cases.hpp"
#include "support/kernel_testing.hpp"

namespace tessera::testing {
namespace {

/// Sizes of a GPT-2; every large array is larger than the emulated cache. Sums over rows need as
/// many as a batch has.
constexpr std::int64_t kCount = std::int64_t{1} << 21;
constexpr std::int64_t kRows = 2048, kBatchRows = 8192, kColumns = 768;
constexpr std::int64_t kVocabularyRows = 40, kVocabulary = 50304;

constexpr double kTarget = 1.05;

struct Measured {
  std::string kernels;
  double asked = 0, moved = 0;  // bytes
};

/// "norm_forward_kernel" of the text with namespaces and template arguments; loops over arrays are
/// told apart by what they do.
std::string short_name(const std::string& kernel) {
  const auto last_part = [](const std::string& text, std::size_t from) {
    const std::size_t end = text.find_first_of("<(,>", from);
    const std::string name = text.substr(from, end - from);
    return name.substr(name.rfind(':') + 1);
  };
  std::string plain = kernel;
  for (std::size_t at; (at = plain.find("{anonymous}::")) != std::string::npos;)
    plain.erase(at, std::string("{anonymous}::").size());
  std::string name = last_part(plain, 0);
  if (name == "elementwise_kernel") name += ' ' + last_part(plain, plain.find('<') + 1);
  return name;
}

Measured measure(const GpuCase& one) {
  one.prepare();
  const emulation::TrafficCounter counter;
  one.run();
  Measured result;
  std::set<std::string> seen;
  for (const emulation::KernelTraffic& kernel : counter.kernels()) {
    const std::string name = short_name(kernel.kernel);
    if (seen.insert(name).second)
      result.kernels += (result.kernels.empty() ? "`" : ", `") + name + '`';
    result.asked += static_cast<double>(kernel.loaded + kernel.stored);
    result.moved += static_cast<double>(kernel.read + kernel.written);
  }
  return result;
}

void expect_at_most(double allowed, const GpuCase& one, const std::string& note = "") {
  const Measured measured = measure(one);
  const auto least = static_cast<double>(one.least()), count = static_cast<double>(one.elements());
  const double ratio = measured.moved / least;
  EXPECT_LE(ratio, allowed) << one.operation() << ' ' << one.type();
  EXPECT_GE(ratio, 1.0) << one.operation() << ' ' << one.type() << ": something is not counted";
  if (const char* file = std::getenv("TESSERA_TRAFFIC_TABLE"))
    std::ofstream(file, std::ios::app)
        << fmt::format("| {} | {} | {} | {} | {:.2f} | {:.2f} | {:.2f} | {:.3f} | {} |\n",
                       one.operation(), one.type(), measured.kernels, one.shape(),
                       measured.asked / count, measured.moved / count, least / count, ratio, note);
}

class CudaTraffic : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, CudaTraffic, ::testing::Values(DType::fp32, DType::bf16),
                         testing::type_name);

TEST_P(CudaTraffic, OfFlatArrays) {
  using namespace gpu_cases;
  const DType dtype = GetParam();
  expect_at_most(kTarget, add(dtype, kCount));
  expect_at_most(kTarget, scale(dtype, kCount));
  expect_at_most(kTarget, accumulate(dtype, kCount));
  expect_at_most(kTarget, cast(dtype, kCount));
  expect_at_most(kTarget, activation_forward(dtype, kCount));
  expect_at_most(kTarget, activation_backward(dtype, kCount));
  expect_at_most(kTarget, gated_activation_forward(dtype, kCount));
  expect_at_most(kTarget, gated_activation_backward(dtype, kCount));
  expect_at_most(kTarget, dropout(dtype, kCount));
  expect_at_most(kTarget, element_loss(dtype, kCount));
  expect_at_most(kTarget, adamw(dtype, kCount));
  expect_at_most(kTarget, sgd(dtype, kCount));
  expect_at_most(kTarget, block_square_sums(dtype, kCount));
  expect_at_most(kTarget, first_non_finite(dtype, kCount));
  if (dtype == DType::bf16) {
    expect_at_most(kTarget, split(kCount));
    expect_at_most(kTarget, join(kCount));
  }
}

TEST_P(CudaTraffic, OfRows) {
  using namespace gpu_cases;
  const DType dtype = GetParam();
  expect_at_most(kTarget, layer_norm_forward(dtype, kRows, kColumns));
  expect_at_most(kTarget, layer_norm_of_sum(dtype, kRows, kColumns));
  expect_at_most(kTarget, rms_norm_forward(dtype, kRows, kColumns));
  expect_at_most(kTarget, softmax_forward(dtype, kRows, kColumns));
  expect_at_most(kTarget, softmax_backward(dtype, kRows, kColumns));
  expect_at_most(kTarget, cross_entropy(dtype, kVocabularyRows, kVocabulary));
  expect_at_most(kTarget, rotary(dtype, kRows, kColumns));
  expect_at_most(kTarget, copy_blocks(dtype, kRows, kColumns));
  if (dtype == DType::fp32) expect_at_most(kTarget, standardize(kRows, kColumns));
  expect_at_most(1.1, attention_merge(dtype, kRows, kColumns),
                 "a row's numbers lie apart, by head; a real cache keeps them");
  expect_at_most(kTarget, kv_append(dtype, kRows, kColumns));
  expect_at_most(kTarget, embedding_forward(dtype, kRows, kColumns, 5000));
  expect_at_most(kTarget, embedding_backward(dtype, kRows, kColumns, 5000));
}

TEST_P(CudaTraffic, OfSumsOverRows) {
  using namespace gpu_cases;
  const DType dtype = GetParam();
  expect_at_most(kTarget, layer_norm_backward(dtype, kBatchRows, kColumns));
  expect_at_most(kTarget, rms_norm_backward(dtype, kBatchRows, kColumns));
  if (dtype == DType::fp32)
    expect_at_most(kTarget, column_sum(dtype, kBatchRows, kColumns));
  else
    expect_at_most(1.07, column_sum(dtype, kBatchRows, kColumns),
                   "128 rows of partial sums in fp32, which a real cache keeps");
}

}  // namespace
}  // namespace tessera::testing
