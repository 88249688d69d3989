// SPDX-License-Identifier: Apache-2.0
// The functions of cuBLASLt that the library uses, on the host: arguments are checked as strictly
// as the original may, products are enqueued on emulated streams.
#include <cstdint>
#include <cstring>
#include <cublasLt.h>

#include "emulation/cublaslt_problem.hpp"
#include "emulation/cublaslt_product.hpp"
#include "emulation/device_state.hpp"
#include "emulation/streams.hpp"

namespace tessera::emulation::cublaslt {
namespace {

template <typename T>
bool read(T& target, const void* value, std::size_t bytes) {
  if (value == nullptr || bytes != sizeof(T)) return false;
  std::memcpy(&target, value, sizeof(T));
  return true;
}

cublasStatus_t invalid_unless(bool valid) {
  return valid ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

bool set_transpose(bool& target, const void* value, std::size_t bytes) {
  cublasOperation_t operation = CUBLAS_OP_N;
  if (!read(operation, value, bytes) || operation == CUBLAS_OP_C) return false;
  target = operation == CUBLAS_OP_T;
  return true;
}

struct Library {
  int device;
};

}  // namespace
}  // namespace tessera::emulation::cublaslt

using namespace tessera::emulation;
using namespace tessera::emulation::cublaslt;

struct cublasLtContext : Library {};

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *handle = new cublasLtContext{{current_device()}};
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
  }
}

const char* cublasLtGetStatusString(cublasStatus_t status) {
  return cublasLtGetStatusName(status) + std::strlen("CUBLAS_STATUS_");
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t operation, std::size_t bytes,
                                               cublasComputeType_t compute, cudaDataType_t scale) {
  if (operation == nullptr || bytes < sizeof(*operation)) return CUBLAS_STATUS_INVALID_VALUE;
  put(operation, Operation{.mark = kOperationMark,
                           .compute = compute,
                           .scale = scale,
                           .transpose_a = false,
                           .transpose_b = false,
                           .epilogue = CUBLASLT_EPILOGUE_DEFAULT,
                           .vector = nullptr,
                           .auxiliary = nullptr,
                           .auxiliary_stride = 0});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, std::size_t bytes) {
  auto ours = get<Operation>(operation, kOperationMark);
  if (!ours) return CUBLAS_STATUS_INVALID_VALUE;
  bool valid = false;
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      valid = set_transpose(ours->transpose_a, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_TRANSB:
      valid = set_transpose(ours->transpose_b, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      valid = read(ours->epilogue, value, bytes) && ours->is_known();
      break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      valid = read(ours->vector, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
      valid = read(ours->auxiliary, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
      valid = read(ours->auxiliary_stride, value, bytes);
      break;
    default:
      break;
  }
  if (valid) put(operation, *ours);
  return invalid_unless(valid);
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, std::size_t bytes,
                                                 cudaDataType type, std::uint64_t rows,
                                                 std::uint64_t columns, std::int64_t stride) {
  if (layout == nullptr || bytes < sizeof(*layout)) return CUBLAS_STATUS_INVALID_VALUE;
  put(layout, Layout{kLayoutMark, type, static_cast<std::int64_t>(rows),
                     static_cast<std::int64_t>(columns), stride});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t preference,
                                                     std::size_t bytes) {
  if (preference == nullptr || bytes < sizeof(*preference)) return CUBLAS_STATUS_INVALID_VALUE;
  put(preference, Preference{.mark = kPreferenceMark,
                             .workspace = 0,
                             .reductions = CUBLASLT_REDUCTION_SCHEME_MASK,
                             .alignment = {256, 256, 256, 256}});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, std::size_t bytes) {
  auto ours = get<Preference>(preference, kPreferenceMark);
  if (!ours) return CUBLAS_STATUS_INVALID_VALUE;
  bool valid = false;
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      valid = read(ours->workspace, value, bytes);
      break;
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      valid = read(ours->reductions, value, bytes);
      break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      valid = read(ours->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value,
                   bytes);
      break;
    default:
      break;
  }
  if (valid) put(preference, *ours);
  return invalid_unless(valid);
}

/// Up to three candidates: one that needs 16-byte alignment and splits the sum, the same with a
/// whole sum, and one that takes everything. Of these, epilogues beyond a bias have the second.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle,
                                              cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t found[], int* count) {
  const auto problem = problem_of(operation, a, b, c, d);
  const auto preferred = get<Preference>(preference, kPreferenceMark);
  if (handle == nullptr || !problem || !preferred || wanted < 1 || found == nullptr ||
      count == nullptr)
    return CUBLAS_STATUS_INVALID_VALUE;
  *count = 0;
  if (!shapes_fit(*problem) || !auxiliary_fits(*problem)) return CUBLAS_STATUS_INVALID_VALUE;
  if (!types_supported(*problem) || !sums_supported(*problem)) return CUBLAS_STATUS_NOT_SUPPORTED;
  const Layout* layouts[4] = {&problem->a, &problem->b, &problem->c, &problem->d};
  bool vectors = true;
  for (int i = 0; i < 4; ++i)
    vectors = vectors && preferred->alignment[i] >= 16 && aligned(nullptr, *layouts[i], 16);
  const std::uint64_t scratch = 1024;
  const Operation& of = problem->operation;
  const bool plain = !of.has_auxiliary() && !of.sums();
  // As the original: it looks at where these lie, though it does not read them yet.
  if (!plain) vectors = vectors && begins_at(of.auxiliary, 16) && begins_at(of.vector, 16);
  const bool splits = plain && vectors && preferred->workspace >= scratch &&
                      (preferred->reductions & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) != 0;
  const auto add = [&](std::uint32_t bytes, std::uint32_t parts, std::uint64_t workspace) {
    if (*count == wanted) return;
    Algorithm algorithm{kAlgorithmMark, problem->signature(), {}, parts, workspace};
    for (int i = 0; i < 4; ++i)
      algorithm.alignment[i] =
          bytes != 0 ? bytes : static_cast<std::uint32_t>(size_of(layouts[i]->type));
    for (int i = 0; i < 4; ++i)
      if (preferred->alignment[i] < algorithm.alignment[i]) return;
    cublasLtMatmulHeuristicResult_t& result = found[(*count)++];
    result = {};
    put(&result.algo, algorithm);
    result.workspaceSize = workspace;
    result.state = CUBLAS_STATUS_SUCCESS;
    result.wavesCount = 1;
  };
  if (splits) add(16, 2, scratch);
  if (vectors) add(16, 1, 0);
  if (plain) add(0, 1, 0);
  return *count > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                              const void* alpha, const void* A, cublasLtMatrixLayout_t a,
                              const void* B, cublasLtMatrixLayout_t b, const void* beta,
                              const void* C, cublasLtMatrixLayout_t c, void* D,
                              cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t* algo,
                              void* workspace, std::size_t workspace_bytes, cudaStream_t stream) {
  const auto problem = problem_of(operation, a, b, c, d);
  const auto algorithm = get<Algorithm>(algo, kAlgorithmMark);
  if (handle == nullptr || !problem || !algorithm || alpha == nullptr || beta == nullptr ||
      A == nullptr || B == nullptr || D == nullptr)
    return CUBLAS_STATUS_INVALID_VALUE;
  const Operation& of = problem->operation;
  const bool needs_vector = of.adds_bias() || of.sums();
  if (algorithm->problem != problem->signature() || algorithm->workspace > workspace_bytes ||
      (algorithm->workspace > 0 && workspace == nullptr) ||
      reinterpret_cast<std::uintptr_t>(workspace) % 16 != 0 ||
      !aligned(A, problem->a, algorithm->alignment[0]) ||
      !aligned(B, problem->b, algorithm->alignment[1]) ||
      !aligned(C, problem->c, algorithm->alignment[2]) ||
      !aligned(D, problem->d, algorithm->alignment[3]) ||
      (needs_vector && (of.vector == nullptr || !begins_at(of.vector, algorithm->alignment[3]))) ||
      (of.has_auxiliary() &&
       (of.auxiliary == nullptr || !begins_at(of.auxiliary, algorithm->alignment[3]))))
    return CUBLAS_STATUS_INVALID_VALUE;
  const Guard guard(mutex());
  if (!usable(stream, "cublasLtMatmul")) return CUBLAS_STATUS_EXECUTION_FAILED;
  if (device_of(stream) != handle->device) return CUBLAS_STATUS_INVALID_VALUE;
  Product product{*problem, *algorithm, 0, 0, A, B, C, D, workspace};
  std::memcpy(&product.alpha, alpha, sizeof(float));
  std::memcpy(&product.beta, beta, sizeof(float));
  if (product.beta != 0 && C == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  const cudaError_t result = enqueue(stream, product.name(), [product] {
    product.run();
    return true;
  });
  return result == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
