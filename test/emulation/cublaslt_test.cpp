// SPDX-License-Identifier: Apache-2.0
// The host's cuBLASLt finds what callers do wrong.
#include <array>
#include <cstdint>
#include <cublasLt.h>
#include <string>
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
  template <typename T>
  cublasStatus_t set(cublasLtMatmulDescAttributes_t attribute, T value) {
    return cublasLtMatmulDescSetAttribute(&operation, attribute, &value, sizeof(value));
  }
  void finish(cublasLtEpilogue_t epilogue, float* vector, float* auxiliary = nullptr,
              std::int64_t stride = 0) {
    EXPECT_EQ(set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, vector), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, auxiliary), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, stride), CUBLAS_STATUS_SUCCESS);
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

/// Runs the product's only candidate: 8 x 4 sums of 16 terms 1/16, so 1 before the epilogue.
Values run_epilogue(Product& product, const TestStream& stream) {
  EXPECT_EQ(product.choose(), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(product.count, 1);
  const DeviceArray<float> left(Values(128, 0.25f)), right(Values(64, 0.25f)), result(32);
  EXPECT_EQ(product.run(0, left.data(), right.data(), result.data(), nullptr, 0, stream),
            CUBLAS_STATUS_SUCCESS);
  return result.read(stream);
}

// Values of the tanh approximation; the exact GELU of 2 is 1.95450.
TEST(EmulatedCublasLt, GeluIsTheTanhApproximationAndKeepsItsArgument) {
  const TestStream stream;
  Product product;
  const DeviceArray<float> bias(Values(8, 1)), argument(32);
  product.finish(CUBLASLT_EPILOGUE_GELU_AUX_BIAS, bias.data(), argument.data(), 8);
  for (const float y : run_epilogue(product, stream)) EXPECT_NEAR(y, 1.954598, 1e-6);
  EXPECT_EQ(argument.read(stream), Values(32, 2));
  product.finish(CUBLASLT_EPILOGUE_GELU_AUX, nullptr, argument.data(), 8);
  for (const float y : run_epilogue(product, stream)) EXPECT_NEAR(y, 0.841192, 1e-6);
  EXPECT_EQ(argument.read(stream), Values(32, 1));
  product.finish(CUBLASLT_EPILOGUE_DGELU, nullptr, argument.data(), 8);
  for (const float y : run_epilogue(product, stream)) EXPECT_NEAR(y, 1.082964, 1e-6);
}

TEST(EmulatedCublasLt, SumsAnOperandOverK) {
  const TestStream stream;
  const DeviceArray<float> rows(8), columns(4);
  Product product;
  product.finish(CUBLASLT_EPILOGUE_BGRADA, rows.data());
  run_epilogue(product, stream);
  EXPECT_EQ(rows.read(stream), Values(8, 4));
  product.finish(CUBLASLT_EPILOGUE_BGRADB, columns.data());
  EXPECT_EQ(product.choose(), CUBLAS_STATUS_NOT_SUPPORTED);  // k is contiguous in b
  product.shape(product.b, 4, 16, 4);
  EXPECT_EQ(product.set(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_T), CUBLAS_STATUS_SUCCESS);
  run_epilogue(product, stream);
  EXPECT_EQ(columns.read(stream), Values(4, 4));
}

TEST(EmulatedCublasLt, RefusesEpiloguesWithoutWhatTheyNeed) {
  const TestStream stream;
  const DeviceArray<float> vector(12), argument(40), operand(Values(128, 1)), result(32);
  const auto run = [&](cublasLtEpilogue_t epilogue, float* sums, float* aux, std::int64_t stride) {
    Product product;
    product.finish(epilogue, sums, aux, stride);
    const cublasStatus_t chosen = product.choose();
    return chosen != CUBLAS_STATUS_SUCCESS
               ? chosen
               : product.run(0, operand.data(), operand.data(), result.data(), nullptr, 0, stream);
  };
  float *v = vector.data(), *a = argument.data();
  EXPECT_EQ(run(CUBLASLT_EPILOGUE_GELU_AUX, nullptr, a, 8), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(run(CUBLASLT_EPILOGUE_GELU_AUX, nullptr, a, 7), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(run(CUBLASLT_EPILOGUE_GELU_AUX, nullptr, a, 12), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(run(CUBLASLT_EPILOGUE_GELU_AUX, nullptr, nullptr, 8), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(run(CUBLASLT_EPILOGUE_GELU_AUX_BIAS, nullptr, a, 8), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(run(CUBLASLT_EPILOGUE_BGRADA, nullptr, nullptr, 0), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(run(CUBLASLT_EPILOGUE_BGRADA, v + 1, nullptr, 0), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(run(CUBLASLT_EPILOGUE_DGELU, nullptr, a + 1, 8), CUBLAS_STATUS_NOT_SUPPORTED);
  Product product;
  EXPECT_EQ(product.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_RELU_BIAS),
            CUBLAS_STATUS_INVALID_VALUE);  // not emulated
  stream.synchronize();
}

TEST(EmulatedCublasLt, ReportsAuxiliaryArraysThatAreTooShort) {
  const TestStream stream;
  const DeviceArray<float> argument(31), sums(7);
  const auto fault_of = [&](cublasLtEpilogue_t epilogue, float* vector, float* aux) {
    const DeviceArray<float> operand(Values(128, 1)), result(32);
    Product product;
    product.finish(epilogue, vector, aux, 8);
    EXPECT_EQ(product.choose(), CUBLAS_STATUS_SUCCESS);
    const Faults faults;
    EXPECT_EQ(product.run(0, operand.data(), operand.data(), result.data(), nullptr, 0, stream),
              CUBLAS_STATUS_SUCCESS);
    cudaStreamSynchronize(stream);
    return faults.text();
  };
  EXPECT_NE(fault_of(CUBLASLT_EPILOGUE_GELU_AUX, nullptr, argument.data())
                .find("operand auxiliary of 128 bytes"),
            std::string::npos);
  EXPECT_NE(
      fault_of(CUBLASLT_EPILOGUE_BGRADA, sums.data(), nullptr).find("operand sums of 32 bytes"),
      std::string::npos);
}

}  // namespace
}  // namespace tessera::emulation_test
