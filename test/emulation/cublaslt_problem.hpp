// SPDX-License-Identifier: Apache-2.0
// What the opaque types of the emulated cuBLASLt hold, and which problems it takes.
#pragma once

#include <cstdint>
#include <cstring>
#include <cublasLt.h>
#include <optional>
#include <type_traits>

namespace tessera::emulation::cublaslt {

// What the opaque types hold. Marks tell initialised ones from memory of any content.
inline constexpr std::uint64_t kLayoutMark = 0x6c61796f75745f31,
                               kOperationMark = 0x6d61746d756c5f31,
                               kPreferenceMark = 0x7072656665725f31,
                               kAlgorithmMark = 0x616c676f5f5f5f31;

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
  void* vector;  // a bias, or where the sums of an operand go
  void* auxiliary;
  std::int64_t auxiliary_stride;

  bool adds_bias() const {
    return epilogue == CUBLASLT_EPILOGUE_BIAS || epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
  }
  bool applies_gelu() const {
    return epilogue == CUBLASLT_EPILOGUE_GELU_AUX || epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
  }
  bool has_auxiliary() const { return applies_gelu() || epilogue == CUBLASLT_EPILOGUE_DGELU; }
  bool sums() const {
    return epilogue == CUBLASLT_EPILOGUE_BGRADA || epilogue == CUBLASLT_EPILOGUE_BGRADB;
  }
  bool is_known() const {
    return epilogue == CUBLASLT_EPILOGUE_DEFAULT || adds_bias() || has_auxiliary() || sums();
  }
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

inline std::size_t size_of(cudaDataType_t type) {
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
    add(operation.auxiliary_stride);
    for (const Layout* layout : {&a, &b, &c, &d}) {
      add(layout->type);
      add(layout->rows);
      add(layout->columns);
      add(layout->stride);
    }
    return mix;
  }
};

inline std::optional<Problem> problem_of(cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                                         cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                         cublasLtMatrixLayout_t d) {
  const auto found = get<Operation>(operation, kOperationMark);
  const auto layout = [](cublasLtMatrixLayout_t real) { return get<Layout>(real, kLayoutMark); };
  const auto la = layout(a), lb = layout(b), lc = layout(c), ld = layout(d);
  if (!found || !la || !lb || !lc || !ld) return std::nullopt;
  return Problem{*found, *la, *lb, *lc, *ld};
}

inline bool shapes_fit(const Problem& p) {
  const bool ta = p.operation.transpose_a, tb = p.operation.transpose_b;
  const std::int64_t m = ta ? p.a.columns : p.a.rows;
  const std::int64_t n = tb ? p.b.rows : p.b.columns, k = tb ? p.b.columns : p.b.rows;
  bool fit =
      k == p.depth() && p.c.rows == m && p.c.columns == n && p.d.rows == m && p.d.columns == n;
  for (const Layout* layout : {&p.a, &p.b, &p.c, &p.d})
    fit = fit && layout->rows > 0 && layout->columns > 0 && layout->stride >= layout->rows;
  return fit;
}

/// The auxiliary matrix has the type of D and rows of a multiple of 8 elements.
inline bool auxiliary_fits(const Problem& p) {
  return !p.operation.has_auxiliary() ||
         (p.operation.auxiliary_stride >= p.d.rows && p.operation.auxiliary_stride % 8 == 0);
}

/// Operands can only be summed over k where their other dimension is the contiguous one.
inline bool sums_supported(const Problem& p) {
  if (p.operation.epilogue == CUBLASLT_EPILOGUE_BGRADA) return !p.operation.transpose_a;
  if (p.operation.epilogue == CUBLASLT_EPILOGUE_BGRADB) return p.operation.transpose_b;
  return true;
}

inline bool types_supported(const Problem& p) {
  const auto in = p.a.type, out = p.d.type;
  const bool fast = p.operation.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  return (p.operation.compute == CUBLAS_COMPUTE_32F || (fast && in == CUDA_R_32F)) &&
         p.operation.scale == CUDA_R_32F && p.b.type == in && p.c.type == out && size_of(in) != 0 &&
         (out == in || out == CUDA_R_32F);
}

inline bool begins_at(const void* data, std::uint32_t bytes) {
  return reinterpret_cast<std::uintptr_t>(data) % bytes == 0;
}
inline bool aligned(const void* data, const Layout& layout, std::uint32_t bytes) {
  return begins_at(data, bytes) &&
         static_cast<std::size_t>(layout.stride) * size_of(layout.type) % bytes == 0;
}

}  // namespace tessera::emulation::cublaslt
