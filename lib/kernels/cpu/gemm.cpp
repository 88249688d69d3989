// SPDX-License-Identifier: Apache-2.0
// Matrix products on the CPU: oneDNN, with fp16 widened to fp32, and bf16 where the processor has
// no instructions for it.
#include "kernels/cpu/gemm.hpp"

#include <cstddef>
#include <cstring>

#include "tessera/device/buffer.hpp"

#include "kernels/cpu/matmul.hpp"
#include "kernels/cpu/parallel.hpp"

namespace tessera::kernels::cpu {
namespace {

Buffer workspace(std::int64_t bytes) {
  return allocate(static_cast<std::size_t>(bytes), Device{}, Purpose::workspace);
}

const void* advance(const void* data, DType dtype, std::int64_t elements) {
  return static_cast<const std::byte*>(data) + elements * static_cast<std::int64_t>(size_of(dtype));
}
void* advance(void* data, DType dtype, std::int64_t elements) {
  return static_cast<std::byte*>(data) + elements * static_cast<std::int64_t>(size_of(dtype));
}

// Copies rows that are `stride` elements apart into fp32 rows that follow each other.
Buffer widen_rows(const void* source, DType dtype, std::int64_t rows, std::int64_t columns,
                  std::int64_t stride) {
  Buffer result = workspace(rows * columns * static_cast<std::int64_t>(sizeof(float)));
  auto* to = result.as<float>();
#pragma omp parallel for schedule(static) if (rows * columns > kChunk)
  for (std::int64_t r = 0; r < rows; ++r)
    convert(advance(source, dtype, r * stride), dtype, to + r * columns, DType::fp32,
            static_cast<std::size_t>(columns));
  return result;
}

void narrow_rows(const float* source, void* target, DType dtype, std::int64_t rows,
                 std::int64_t columns, std::int64_t stride) {
#pragma omp parallel for schedule(static) if (rows * columns > kChunk)
  for (std::int64_t r = 0; r < rows; ++r)
    convert(source + r * columns, DType::fp32, advance(target, dtype, r * stride), dtype,
            static_cast<std::size_t>(columns));
}

// oneDNN 2.6 loses a sixth of its rate where many rows are not a multiple of its block, as in the
// gradient of a vocabulary of 50257: the rest goes apart.
void gemm_in_blocks_of_rows(const Gemm& args) {
  constexpr std::int64_t kBlock = 64, kMany = 1024;
  const std::int64_t whole = args.m / kBlock * kBlock;
  if (args.m < kMany || whole == args.m) return matmul(args);
  Gemm part = args;
  part.m = whole;
  matmul(part);
  part.m = args.m - whole;
  part.a = advance(args.a, args.input_type, args.transpose_a ? whole : whole * args.lda);
  part.c = advance(args.c, args.output_type, whole * args.ldc);
  matmul(part);
}

// The same product in fp32, one rounding at the end as in the bf16 instructions' path.
void gemm_widened(const Gemm& args) {
  const DType dtype = args.input_type;
  const std::int64_t a_rows = args.transpose_a ? args.k : args.m;
  const std::int64_t a_columns = args.transpose_a ? args.m : args.k;
  const std::int64_t b_rows = args.transpose_b ? args.n : args.k;
  const std::int64_t b_columns = args.transpose_b ? args.k : args.n;
  const Buffer a = widen_rows(args.a, dtype, a_rows, a_columns, args.lda);
  const Buffer b = widen_rows(args.b, dtype, b_rows, b_columns, args.ldb);
  const Buffer bias = args.bias ? widen_rows(args.bias, dtype, 1, args.n, args.n) : Buffer();
  Gemm wide = args;
  wide.input_type = wide.output_type = DType::fp32;
  wide.a = a.data();
  wide.lda = a_columns;
  wide.b = b.data();
  wide.ldb = b_columns;
  wide.bias = bias.data();
  if (args.output_type == DType::fp32) return gemm_in_blocks_of_rows(wide);
  const Buffer c = args.beta == 0
                       ? workspace(args.m * args.n * static_cast<std::int64_t>(sizeof(float)))
                       : widen_rows(args.c, dtype, args.m, args.n, args.ldc);
  wide.c = c.data();
  wide.ldc = args.n;
  gemm_in_blocks_of_rows(wide);
  narrow_rows(c.as<float>(), args.c, dtype, args.m, args.n, args.ldc);
}

// An empty sum is zero: a product with one column and row of zeros.
void gemm_empty(const Gemm& args) {
  const Buffer zeros = workspace((args.m + args.n) * static_cast<std::int64_t>(sizeof(float)));
  std::memset(zeros.data(), 0, zeros.bytes());
  Gemm product = args;
  product.a = product.b = zeros.data();
  product.k = 1;
  product.transpose_a = false;
  product.transpose_b = true;
  product.lda = product.ldb = 1;
  gemm(product);
}

}  // namespace

void gemm(const Gemm& args) {
  if (args.k == 0) return gemm_empty(args);
  if (!matmul_has(args.input_type)) return gemm_widened(args);
  gemm_in_blocks_of_rows(args);
}

}  // namespace tessera::kernels::cpu
