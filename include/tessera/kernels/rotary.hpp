// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding (Su et al. 2021), pairs (i, i + rotary_dim / 2).
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels {

/// Rotates the first rotary_dim elements of each head in place by angle positions[r] *
/// inverse_frequency[i]; `inverse` rotates back, which is the backward pass. Row r, head h starts
/// at x + r * row_stride + h * head_dim.
struct Rotary {
  void* x;
  const std::int32_t* positions;   // [rows]
  const float* inverse_frequency;  // [rotary_dim / 2]
  std::int64_t rows, heads, head_dim, rotary_dim, row_stride;
  bool inverse = false;
  DType dtype;
};
void rotary(const Stream& stream, const Rotary& args);

}  // namespace tessera::kernels
