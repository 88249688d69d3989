// SPDX-License-Identifier: Apache-2.0
// Root-mean-square normalisation (Zhang and Sennrich 2019).
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels {

/// y[r, :] = x[r, :] * rstd * weight with rstd = 1 / sqrt(mean(x^2) + epsilon), kept in fp32.
struct RmsNormForward {
  const void* x;
  const void* weight;
  void* y;
  float* rstd;  // [rows] or nullptr
  std::int64_t rows, columns;
  float epsilon;
  DType dtype;
};
void rms_norm_forward(const Stream& stream, const RmsNormForward& args);

struct RmsNormBackward {
  const void* dy;
  const void* x;
  const void* weight;
  const float* rstd;
  void* dx;
  bool accumulate_dx = false;
  void* dweight;  // nullptr: not wanted
  DType gradient_type;
  bool accumulate;
  std::int64_t rows, columns;
  DType dtype;
};
void rms_norm_backward(const Stream& stream, const RmsNormBackward& args);

}  // namespace tessera::kernels
