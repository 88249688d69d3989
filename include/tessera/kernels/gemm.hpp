// SPDX-License-Identifier: Apache-2.0
// Matrix products.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"
#include "tessera/kernels/activation.hpp"

namespace tessera::kernels {

/// What becomes of v = alpha * op(a) op(b) [+ bias] on its way to c.
enum class GemmEpilogue : std::uint8_t {
  none,
  activation,           // c = f(v); v is written to `argument`
  activation_gradient,  // c = v * f'(argument); no bias
};

/// c[m, n] = alpha * op(a) op(b) + beta * c [+ bias[n]], row-major; op transposes when asked, so a
/// is [m, k] or [k, m], b is [k, n] or [n, k]. Rows are `lda`, `ldb`, `ldc` elements apart; 0 means
/// packed. Types: a and b of one type, fp32, bf16 or fp16; c fp32 or that type; bias of the type of
/// b. Sums in fp32. beta 0 or 1. On a CPU fp16, and bf16 without bf16 instructions, is widened to
/// fp32. FLOPs: 2 m n k, added to flop_count(). The CPU computes an epilogue as kernels of their
/// own, so that v is rounded to the type of c first. cuBLASLt need not round in between; where it
/// has no such epilogue, a GPU does as the CPU.
struct Gemm {
  const void* a;
  const void* b;
  void* c;
  const void* bias = nullptr;
  std::int64_t m, n, k;
  bool transpose_a = false;
  bool transpose_b = false;
  std::int64_t lda = 0, ldb = 0, ldc = 0;
  float alpha = 1;
  float beta = 0;
  DType input_type = DType::fp32;
  DType output_type = DType::fp32;
  /// Needs beta 0 and packed c; `argument` [m, n] is packed and of the type of c.
  GemmEpilogue epilogue = GemmEpilogue::none;
  Activation function = Activation::gelu_tanh;  // f
  void* argument = nullptr;
  /// Sums over k that the operands are read for anyway, a bias's gradient beside its weight's: of
  /// op(a) [m], of op(b) [n], in the type of c, added to where beta is 1. At most one, without an
  /// epilogue; the operand's k rows are packed (a transposed, b not).
  void* a_sums = nullptr;
  void* b_sums = nullptr;
};
void gemm(const Stream& stream, const Gemm& args);

/// How products are computed on CUDA devices, for the whole process; the CPU has no such choices.
struct GemmOptions {
  /// fp32 operands may lose 13 bits of their mantissa, to run on tensor cores.
  bool tf32 = false;
  /// The first product of each shape runs every candidate of cuBLASLt's heuristic and keeps the
  /// fastest, instead of the one that should be. That call waits for the stream; which one is kept,
  /// and with it the order of sums, may differ from run to run.
  bool measure = false;
};
void set_gemm_options(const GemmOptions& options);
GemmOptions gemm_options();

/// Sum of 2 m n k over every matrix product of this process (gemm and attention), to compare with
/// formulas.
std::int64_t flop_count();
void add_flops(std::int64_t flops);

}  // namespace tessera::kernels
