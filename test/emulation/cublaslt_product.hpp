// SPDX-License-Identifier: Apache-2.0
// The matrix products of the emulated cuBLASLt, with their epilogues.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <string>
#include <vector>

#include "emulation/cublaslt_problem.hpp"
#include "emulation/device_state.hpp"
#include "emulation/emulation.hpp"
#include "emulation/memory.hpp"

namespace tessera::emulation::cublaslt {

inline float load(const void* data, cudaDataType_t type, std::int64_t i) {
  if (type == CUDA_R_16BF) return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
  if (type == CUDA_R_16F) return __half2float(static_cast<const __half*>(data)[i]);
  return static_cast<const float*>(data)[i];
}
inline void store(void* data, cudaDataType_t type, std::int64_t i, float value) {
  if (type == CUDA_R_16BF)
    static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(value);
  else if (type == CUDA_R_16F)
    static_cast<__half*>(data)[i] = __float2half_rn(value);
  else
    static_cast<float*>(data)[i] = value;
}

/// 10 bits of mantissa remain, as on tensor cores with TF32.
inline float shorten(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (!std::isfinite(value)) return value;
  bits = (bits + 0xfffu + ((bits >> 13) & 1u)) & ~0x1fffu;
  std::memcpy(&value, &bits, sizeof(bits));
  return value;
}

// The tanh approximation of GELU, which is what cuBLASLt computes.
inline constexpr float kGeluScale = 0.797884561f, kGeluCubic = 0.044715f;  // sqrt(2 / pi)
inline float gelu(float x) {
  return 0.5f * x * (1 + std::tanh(kGeluScale * (x + kGeluCubic * x * x * x)));
}
inline float gelu_derivative(float x) {
  const float t = std::tanh(kGeluScale * (x + kGeluCubic * x * x * x));
  const float slope = kGeluScale * (1 + 3 * kGeluCubic * x * x);
  return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * slope;
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
  bool epilogue_reachable() const {
    const Operation& operation = problem.operation;
    const Layout& of = problem.d;
    const bool by_column = operation.epilogue == CUBLASLT_EPILOGUE_BGRADB;
    const auto length = static_cast<std::size_t>(by_column ? of.columns : of.rows);
    return (!operation.has_auxiliary() ||
            reachable("auxiliary", operation.auxiliary, auxiliary())) &&
           (!(operation.adds_bias() || operation.sums()) ||
            reachable(operation.sums() ? "sums" : "bias", operation.vector,
                      length * size_of(of.type)));
  }
  Layout auxiliary() const {
    Layout layout = problem.d;
    layout.stride = problem.operation.auxiliary_stride;
    return layout;
  }
  bool all_reachable() const {
    return reachable("A", a, problem.a) && reachable("B", b, problem.b) &&
           (beta == 0 || reachable("C", c, problem.c)) && reachable("D", d, problem.d) &&
           epilogue_reachable() &&
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
        store(d, problem.d.type, j * problem.d.stride + i, after(value, i, j));
      }
    if (operation.epilogue == CUBLASLT_EPILOGUE_BGRADA) sum_rows(left, problem.d.rows);
    if (operation.epilogue == CUBLASLT_EPILOGUE_BGRADB) sum_rows(right, problem.d.columns);
  }

  /// The epilogue of element (i, j) of D. GELU takes its argument before that is rounded.
  float after(float value, std::int64_t i, std::int64_t j) const {
    const Operation& operation = problem.operation;
    const cudaDataType_t type = problem.d.type;
    const std::int64_t place = j * operation.auxiliary_stride + i;
    if (operation.adds_bias()) value += load(operation.vector, type, i);
    if (operation.epilogue == CUBLASLT_EPILOGUE_DGELU)
      return value * gelu_derivative(load(operation.auxiliary, type, place));
    if (!operation.applies_gelu()) return value;
    store(operation.auxiliary, type, place, value);
    return gelu(value);
  }
  void sum_rows(const std::vector<float>& values, std::int64_t rows) const {
    const std::int64_t depth = problem.depth();
    for (std::int64_t r = 0; r < rows; ++r) {
      float sum = 0;
      for (std::int64_t l = 0; l < depth; ++l)
        sum += values[static_cast<std::size_t>(r * depth + l)];
      store(problem.operation.vector, problem.d.type, r, sum);
    }
  }
};

}  // namespace tessera::emulation::cublaslt
