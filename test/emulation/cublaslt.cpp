// SPDX-License-Identifier: Apache-2.0
// The functions of cuBLASLt that the library uses, on the host: arguments are checked as strictly
// as the original may, products are enqueued on emulated streams.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "emulation/device_state.hpp"
#include "emulation/emulation.hpp"
#include "emulation/memory.hpp"
#include "emulation/streams.hpp"

namespace tessera::emulation {
namespace {

// What the opaque types hold. Marks tell initialised ones from memory of any content.
constexpr std::uint64_t kLayoutMark = 0x6c61796f75745f31, kOperationMark = 0x6d61746d756c5f31,
                        kPreferenceMark = 0x7072656665725f31, kAlgorithmMark = 0x616c676f5f5f5f31;

struct Layout {
  std::uint64_t mark;
  cudaDataType_t type;
  std::int64_t rows, columns, stride;  // column-major
};

struct Operation {
  std::uint64_t mark;
  cublasComputeType_t compute;
  cudaDataType_t scale;
  bool transpose_a, transpose_b;
  cublasLtEpilogue_t epilogue;
  const void* bias;
};

struct Preference {
  std::uint64_t mark;
  std::uint64_t workspace;
  std::uint32_t reductions;
  std::uint32_t alignment[4];  // of A, B, C, D
};

// Valid for the problem that it was found for, not for others.
struct Algorithm {
  std::uint64_t mark;
  std::uint64_t problem;
  std::uint32_t alignment[4];
  std::uint32_t parts;  // of the sum, which meet in the workspace
  std::uint64_t workspace;
};

template <typename Real, typename Ours>
void put(Real* real, const Ours& ours) {
  static_assert(sizeof(Ours) <= sizeof(Real) && std::is_trivially_copyable_v<Ours>);
  std::memset(static_cast<void*>(real), 0, sizeof(Real));
  std::memcpy(static_cast<void*>(real), &ours, sizeof(Ours));
}

template <typename Ours, typename Real>
std::optional<Ours> get(const Real* real, std::uint64_t mark) {
  static_assert(sizeof(Ours) <= sizeof(Real));
  if (real == nullptr) return std::nullopt;
  Ours ours;
  std::memcpy(&ours, real, sizeof(Ours));
  if (ours.mark != mark) return std::nullopt;
  return ours;
}

std::size_t size_of(cudaDataType_t type) {
  return type == CUDA_R_32F ? 4 : type == CUDA_R_16F || type == CUDA_R_16BF ? 2 : 0;
}

struct Problem {
  Operation operation;
  Layout a, b, c, d;

  std::int64_t depth() const { return operation.transpose_a ? a.rows : a.columns; }
  /// Mixes everything that an algorithm depends on.
  std::uint64_t signature() const {
    std::uint64_t mix = 0;
    const auto add = [&](auto value) {
      mix = (mix ^ static_cast<std::uint64_t>(value)) * 0x9e3779b97f4a7c15u;
      mix ^= mix >> 29;
    };
    add(operation.compute);
    add(operation.transpose_a);
    add(operation.transpose_b);
    add(operation.epilogue);
    for (const Layout* layout : {&a, &b, &c, &d}) {
      add(layout->type);
      add(layout->rows);
      add(layout->columns);
      add(layout->stride);
    }
    return mix;
  }
};

std::optional<Problem> problem_of(cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                                  cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                  cublasLtMatrixLayout_t d) {
  const auto found = get<Operation>(operation, kOperationMark);
  const auto layout = [](cublasLtMatrixLayout_t real) { return get<Layout>(real, kLayoutMark); };
  const auto la = layout(a), lb = layout(b), lc = layout(c), ld = layout(d);
  if (!found || !la || !lb || !lc || !ld) return std::nullopt;
  return Problem{*found, *la, *lb, *lc, *ld};
}

bool shapes_fit(const Problem& p) {
  const bool ta = p.operation.transpose_a, tb = p.operation.transpose_b;
  const std::int64_t m = ta ? p.a.columns : p.a.rows;
  const std::int64_t n = tb ? p.b.rows : p.b.columns, k = tb ? p.b.columns : p.b.rows;
  bool fit =
      k == p.depth() && p.c.rows == m && p.c.columns == n && p.d.rows == m && p.d.columns == n;
  for (const Layout* layout : {&p.a, &p.b, &p.c, &p.d})
    fit = fit && layout->rows > 0 && layout->columns > 0 && layout->stride >= layout->rows;
  return fit;
}

bool types_supported(const Problem& p) {
  const auto in = p.a.type, out = p.d.type;
  const bool fast = p.operation.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  return (p.operation.compute == CUBLAS_COMPUTE_32F || (fast && in == CUDA_R_32F)) &&
         p.operation.scale == CUDA_R_32F && p.b.type == in && p.c.type == out && size_of(in) != 0 &&
         (out == in || out == CUDA_R_32F);
}

bool aligned(const void* data, const Layout& layout, std::uint32_t bytes) {
  return reinterpret_cast<std::uintptr_t>(data) % bytes == 0 &&
         static_cast<std::size_t>(layout.stride) * size_of(layout.type) % bytes == 0;
}

float load(const void* data, cudaDataType_t type, std::int64_t i) {
  if (type == CUDA_R_16BF) return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
  if (type == CUDA_R_16F) return __half2float(static_cast<const __half*>(data)[i]);
  return static_cast<const float*>(data)[i];
}
void store(void* data, cudaDataType_t type, std::int64_t i, float value) {
  if (type == CUDA_R_16BF)
    static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(value);
  else if (type == CUDA_R_16F)
    static_cast<__half*>(data)[i] = __float2half_rn(value);
  else
    static_cast<float*>(data)[i] = value;
}

/// 10 bits of mantissa remain, as on tensor cores with TF32.
float shorten(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (!std::isfinite(value)) return value;
  bits = (bits + 0xfffu + ((bits >> 13) & 1u)) & ~0x1fffu;
  std::memcpy(&value, &bits, sizeof(bits));
  return value;
}

/// One call of cublasLtMatmul, with everything that it points to on the host copied.
struct Product {
  Problem problem;
  Algorithm algorithm;
  float alpha, beta;
  const void *a, *b, *c;
  void *d, *workspace;

  std::string name() const {
    return "cublasLtMatmul of " + std::to_string(problem.d.rows) + " x " +
           std::to_string(problem.d.columns) + " x " + std::to_string(problem.depth());
  }

  bool reachable(const char* operand, const void* data, std::size_t bytes) const {
    const auto allocation = find_allocation(data);
    const auto* begin = static_cast<const std::byte*>(data);
    if (allocation && allocation->stage == Allocation::Stage::live &&
        begin + bytes <= allocation->begin + allocation->bytes)
      return true;
    report_fault(FaultKind::memory, name() + ": operand " + operand + " of " +
                                        std::to_string(bytes) + " bytes begins " +
                                        describe_address(data));
    return false;
  }
  bool reachable(const char* operand, const void* data, const Layout& layout) const {
    const auto elements = (layout.columns - 1) * layout.stride + layout.rows;
    return reachable(operand, data, static_cast<std::size_t>(elements) * size_of(layout.type));
  }
  bool all_reachable() const {
    return reachable("A", a, problem.a) && reachable("B", b, problem.b) &&
           (beta == 0 || reachable("C", c, problem.c)) && reachable("D", d, problem.d) &&
           (problem.operation.epilogue != CUBLASLT_EPILOGUE_BIAS ||
            reachable("bias", problem.operation.bias,
                      static_cast<std::size_t>(problem.d.rows) * size_of(problem.d.type))) &&
           (algorithm.workspace == 0 || reachable("workspace", workspace, algorithm.workspace));
  }

  /// Element (i, l) of op(A) in row i, or (l, j) of op(B) in row j.
  std::vector<float> rows_of(const void* data, const Layout& layout, bool by_column) const {
    const std::int64_t rows = by_column ? layout.columns : layout.rows;
    const std::int64_t depth = by_column ? layout.rows : layout.columns;
    const bool shortened = problem.operation.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    std::vector<float> result(static_cast<std::size_t>(rows * depth));
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t l = 0; l < depth; ++l) {
        const float value =
            load(data, layout.type, by_column ? r * layout.stride + l : l * layout.stride + r);
        result[static_cast<std::size_t>(r * depth + l)] = shortened ? shorten(value) : value;
      }
    return result;
  }

  static float dot(const float* x, const float* y, std::int64_t begin, std::int64_t end) {
    float sums[16] = {};
    std::int64_t l = begin;
    for (; l + 16 <= end; l += 16)
      for (std::int64_t i = 0; i < 16; ++i) sums[i] += x[l + i] * y[l + i];
    float sum = 0;
    for (; l < end; ++l) sum += x[l] * y[l];
    for (const float part : sums) sum += part;
    return sum;
  }

  void run() const {
    if (!all_reachable()) return;
    const Operation& operation = problem.operation;
    const auto left = rows_of(a, problem.a, operation.transpose_a);
    const auto right = rows_of(b, problem.b, !operation.transpose_b);
    const std::int64_t depth = problem.depth();
    // Whoever shares a workspace between streams shall see it.
    if (algorithm.workspace > 0) std::memset(workspace, 0xff, algorithm.workspace);
    for (std::int64_t j = 0; j < problem.d.columns; ++j)
      for (std::int64_t i = 0; i < problem.d.rows; ++i) {
        const float* x = left.data() + i * depth;
        const float* y = right.data() + j * depth;
        float sum = 0;
        for (std::int64_t part = 0; part < algorithm.parts; ++part)
          sum += dot(x, y, depth * part / algorithm.parts, depth * (part + 1) / algorithm.parts);
        float value = alpha * sum;
        if (beta != 0) value += beta * load(c, problem.c.type, j * problem.c.stride + i);
        if (operation.epilogue == CUBLASLT_EPILOGUE_BIAS)
          value += load(operation.bias, problem.d.type, i);
        store(d, problem.d.type, j * problem.d.stride + i, value);
      }
  }
};

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
}  // namespace tessera::emulation

using namespace tessera::emulation;

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
                           .bias = nullptr});
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
      valid = read(ours->epilogue, value, bytes) && (ours->epilogue == CUBLASLT_EPILOGUE_DEFAULT ||
                                                     ours->epilogue == CUBLASLT_EPILOGUE_BIAS);
      break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      valid = read(ours->bias, value, bytes);
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
/// whole sum, and one that takes everything.
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
  if (!shapes_fit(*problem)) return CUBLAS_STATUS_INVALID_VALUE;
  if (!types_supported(*problem)) return CUBLAS_STATUS_NOT_SUPPORTED;
  const Layout* layouts[4] = {&problem->a, &problem->b, &problem->c, &problem->d};
  bool vectors = true;
  for (int i = 0; i < 4; ++i)
    vectors = vectors && preferred->alignment[i] >= 16 && aligned(nullptr, *layouts[i], 16);
  const std::uint64_t scratch = 1024;
  const bool splits = vectors && preferred->workspace >= scratch &&
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
  add(0, 1, 0);
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
  const bool biased = problem->operation.epilogue == CUBLASLT_EPILOGUE_BIAS;
  if (algorithm->problem != problem->signature() || algorithm->workspace > workspace_bytes ||
      (algorithm->workspace > 0 && workspace == nullptr) ||
      reinterpret_cast<std::uintptr_t>(workspace) % 16 != 0 ||
      !aligned(A, problem->a, algorithm->alignment[0]) ||
      !aligned(B, problem->b, algorithm->alignment[1]) ||
      !aligned(C, problem->c, algorithm->alignment[2]) ||
      !aligned(D, problem->d, algorithm->alignment[3]) ||
      (biased && (problem->operation.bias == nullptr ||
                  !aligned(problem->operation.bias, problem->d, algorithm->alignment[3]))))
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
