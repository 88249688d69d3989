// SPDX-License-Identifier: Apache-2.0
// Dropout with counter-based random numbers.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"
#include "tessera/kernels/pass_variables.hpp"

namespace tessera::kernels {

/// y[i] = x[i] * (1 / (1 - p)) where RandomStream(seed, stream).uniform(offset + i) >= p, else 0.
/// Its own backward with dy for x. In place allowed. With `residual`, y = residual + dropout(x).
struct Dropout {
  const void* x;
  const void* residual = nullptr;
  void* y;
  std::int64_t count;
  std::int64_t offset;  // global index of element 0
  float probability;
  std::uint64_t seed, stream;
  DType dtype;
  /// If set, the stream is mix(variables->step, stream), and element 0 has the global index offset
  /// + variables->first_row * row_elements.
  const PassVariables* variables = nullptr;
  std::int64_t row_elements = 0;
};
void dropout(const Stream& stream, const Dropout& args);

}  // namespace tessera::kernels
