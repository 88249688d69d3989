// SPDX-License-Identifier: Apache-2.0
// Layer normalisation over the last dimension (Ba et al. 2016).
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels {

/// y[r, :] = (x[r, :] - mean) * rstd * weight + bias; mean and rstd [rows] are kept in fp32 for the
/// backward pass.
struct LayerNormForward {
  const void* x;       // [rows, columns]
  const void* weight;  // [columns]
  const void* bias;    // [columns] or nullptr
  void* y;             // [rows, columns]
  float* mean;         // [rows] or nullptr
  float* rstd;         // [rows] or nullptr
  std::int64_t rows, columns;
  float epsilon;
  DType dtype;
  /// [rows, columns]: residual + x is written to `sum`, which may be either, and normalised instead
  /// of x; the same bits as adding first.
  const void* residual = nullptr;
  void* sum = nullptr;
};
void layer_norm_forward(const Stream& stream, const LayerNormForward& args);

/// Deterministic for a given thread count. dweight and dbias are added to when `accumulate`, else
/// overwritten.
struct LayerNormBackward {
  const void* dy;
  const void* x;
  const void* weight;
  const float* mean;
  const float* rstd;
  void* dx;
  bool accumulate_dx = false;  // dx += (the residual branch's gradient is there already)
  void* dweight;               // nullptr: not wanted
  void* dbias;                 // nullptr: not wanted
  DType gradient_type;         // of dweight and dbias: fp32 or dtype
  bool accumulate;
  std::int64_t rows, columns;
  DType dtype;
};
void layer_norm_backward(const Stream& stream, const LayerNormBackward& args);

}  // namespace tessera::kernels
