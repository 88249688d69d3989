// SPDX-License-Identifier: Apache-2.0
// Simple loops over flat arrays.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels {

/// y = a + b; y may be a or b. Computed in fp32, rounded once.
void add(const Stream& stream, const void* a, const void* b, void* y, std::int64_t count,
         DType dtype);
/// y = alpha * x; y may be x.
void scale(const Stream& stream, const void* x, float alpha, void* y, std::int64_t count,
           DType dtype);
/// accumulator += alpha * x for two types (gradient accumulation in fp32).
void accumulate(const Stream& stream, const void* x, DType x_type, float alpha, void* accumulator,
                DType accumulator_type, std::int64_t count);
void cast(const Stream& stream, const void* x, DType x_type, void* y, DType y_type,
          std::int64_t count);
/// y[c] (+)= sum over rows of x[r, c]: a bias gradient. Summed in fp32 by fixed
/// blocks of rows, the same bits for any thread count.
struct ColumnSum {
  const void* x;  // [rows, columns]
  void* y;        // [columns]
  DType output_type;
  bool accumulate;
  std::int64_t rows, columns;
  DType dtype;
};
void column_sum(const Stream& stream, const ColumnSum& args);

}  // namespace tessera::kernels
