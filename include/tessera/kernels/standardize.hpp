// SPDX-License-Identifier: Apache-2.0
// Scaling of columns to mean 0 and deviation 1, and back.
#pragma once

#include <cstdint>

#include "tessera/device/stream.hpp"

namespace tessera::kernels {

/// y = (x - mean) / deviation, or with `inverse` y = x * deviation + mean: of each column, computed
/// in fp64 and rounded once, the same bits on every device.
struct Standardize {
  const float* x;           // [rows, columns]
  float* y;                 // [rows, columns]; may be x
  const double* mean;       // [columns]
  const double* deviation;  // [columns]
  std::int64_t rows, columns;
  bool inverse = false;
};
void standardize(const Stream& stream, const Standardize& args);

}  // namespace tessera::kernels
