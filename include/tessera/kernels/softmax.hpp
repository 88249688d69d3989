// SPDX-License-Identifier: Apache-2.0
// Softmax over the last dimension.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels {

struct SoftmaxForward {
  const void* x;
  void* y;  // may be x
  std::int64_t rows, columns;
  DType dtype;
};
void softmax_forward(const Stream& stream, const SoftmaxForward& args);

/// dx = y * (dy - sum(dy * y)); dx may be dy.
struct SoftmaxBackward {
  const void* dy;
  const void* y;
  void* dx;
  std::int64_t rows, columns;
  DType dtype;
};
void softmax_backward(const Stream& stream, const SoftmaxBackward& args);

}  // namespace tessera::kernels
