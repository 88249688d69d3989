// SPDX-License-Identifier: Apache-2.0
// The host's cuBLASLt finds what callers do wrong.
#include <array>
#include <cstdint>
#include <cublasLt.h>
#include <vector>

#include <gtest/gtest.h>

#include "emulation/device_data.hpp"

namespace tessera::emulation_test {
namespace {

using Values = std::vector<float>;

/// d[8, 4] = a[8, 16] b[16, 4], column-major fp32, with every part open to spoil.
struct Product {
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t a, b, d;
  cublasLtMatmulPreferenceOpaque_t preference;
  std::array<cublasLtMatmulHeuristicResult_t, 4> found;
  int count = 0;

  Product() {
    EXPECT_EQ(cublasLtCreate(&handle), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
              CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasLtMatmulPreferenceInit(&preference), CUBLAS_STATUS_SUCCESS);
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{1} << 20);
    shape(a, 8, 16, 8);
    shape(b, 16, 4, 16);
    shape(d, 8, 4, 8);
  }
  static void shape(cublasLtMatrixLayoutOpaque_t& layout, std::uint64_t rows, std::uint64_t columns,
                    std::int64_t stride, cudaDataType_t type = CUDA_R_32F) {
    EXPECT_EQ(cublasLtMatrixLayoutInit(&layout, type, rows, columns, stride),
              CUBLAS_STATUS_SUCCESS);
  }
  template <typename T>
  void prefer(cublasLtMatmulPreferenceAttributes_t attribute, T value) {
    EXPECT_EQ(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof(value)),
              CUBLAS_STATUS_SUCCESS);
  }
  cublasStatus_t choose() {
    return cublasLtMatmulAlgoGetHeuristic(handle, &operation, &a, &b, &d, &d, &preference,
                                          static_cast<int>(found.size()), found.data(), &count);
  }
  cublasStatus_t run(int candidate, const float* left, const float* right, float* result,
                     void* workspace, std::size_t bytes, cudaStream_t stream) {
    const float one = 1, zero = 0;
    return cublasLtMatmul(handle, &operation, &one, left, &a, right, &b, &zero, result, &d, result,
                          &d, &found[static_cast<std::size_t>(candidate)].algo, workspace, bytes,
                          stream);
  }
};

TEST(EmulatedCublasLt, EveryCandidateComputesTheProduct) {
  const TestStream stream;
  Product product;
  ASSERT_EQ(product.choose(), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(product.count, 3);
  const DeviceArray<float> left(Values(128, 2)), right(Values(64, 3)), workspace(1024);
  for (int i = 0; i < product.count; ++i) {
    const DeviceArray<float> result(32);
    EXPECT_EQ(
        product.run(i, left.data(), right.data(), result.data(), workspace.data(), 4096, stream),
        CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(result.read(stream), Values(32, 96));
  }
}

TEST(EmulatedCublasLt, RefusesWhatDoesNotFit) {
  const auto status_after = [](auto spoil) {
    Product product;
    spoil(product);
    return product.choose();
  };
  EXPECT_EQ(status_after([](Product& p) { p.shape(p.b, 15, 4, 16); }), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(status_after([](Product& p) { p.shape(p.a, 8, 16, 7); }), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(status_after([](Product& p) { p.shape(p.d, 8, 5, 8); }), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(status_after([](Product& p) { p.shape(p.b, 16, 4, 16, CUDA_R_16BF); }),
            CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(status_after([](Product& p) { p.shape(p.d, 8, 4, 8, CUDA_R_16F); }),
            CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(status_after([](Product& p) { p.a = {}; }), CUBLAS_STATUS_INVALID_VALUE);
}

TEST(EmulatedCublasLt, HoldsCallersToAlignmentWorkspaceAndProblem) {
  const TestStream stream;
  const DeviceArray<float> left(Values(132, 2)), right(Values(64, 3)), result(32), workspace(1024);
  Product product;
  ASSERT_EQ(product.choose(), CUBLAS_STATUS_SUCCESS);
  ASSERT_GT(product.found[0].workspaceSize, 0u);
  const auto run = [&](const float* a, std::size_t bytes) {
    return product.run(0, a, right.data(), result.data(), workspace.data(), bytes, stream);
  };
  EXPECT_EQ(run(left.data() + 1, 4096), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(run(left.data(), product.found[0].workspaceSize - 1), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(run(left.data(), 4096), CUBLAS_STATUS_SUCCESS);
  product.shape(product.a, 8, 16, 12);  // chosen for another
  EXPECT_EQ(run(left.data(), 4096), CUBLAS_STATUS_INVALID_VALUE);
  stream.synchronize();

  product.shape(product.a, 8, 16, 8);
  product.prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, std::uint32_t{4});
  ASSERT_EQ(product.choose(), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(product.count, 1);
  EXPECT_EQ(run(left.data() + 1, 4096), CUBLAS_STATUS_SUCCESS);
  stream.synchronize();
}

TEST(EmulatedCublasLt, ReportsOperandsBeyondTheirArrays) {
  const TestStream stream;
  const DeviceArray<float> left(Values(127, 2)), right(Values(64, 3)), result(32), workspace(1024);
  Product product;
  ASSERT_EQ(product.choose(), CUBLAS_STATUS_SUCCESS);
  const Faults faults;
  EXPECT_EQ(
      product.run(0, left.data(), right.data(), result.data(), workspace.data(), 4096, stream),
      CUBLAS_STATUS_SUCCESS);
  cudaStreamSynchronize(stream);
  ASSERT_EQ(faults.all().size(), 1u);
  EXPECT_NE(faults.text().find("operand A of 512 bytes"), std::string::npos) << faults.text();
}

}  // namespace
}  // namespace tessera::emulation_test
