// SPDX-License-Identifier: Apache-2.0
// Pointwise activation functions.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels {

enum class Activation : std::uint8_t { gelu, gelu_tanh, silu, relu, tanh };

/// y = f(x); in place allowed.
struct ActivationForward {
  const void* x;
  void* y;
  std::int64_t count;
  Activation function;
  DType dtype;
};
void activation_forward(const Stream& stream, const ActivationForward& args);

/// dx = dy * f'(x); dx may be dy.
struct ActivationBackward {
  const void* dy;
  const void* x;
  void* dx;
  std::int64_t count;
  Activation function;
  DType dtype;
};
void activation_backward(const Stream& stream, const ActivationBackward& args);

/// y = f(gate) * up.
struct GatedActivationForward {
  const void* gate;
  const void* up;
  void* y;
  std::int64_t count;
  Activation function;
  DType dtype;
};
void gated_activation_forward(const Stream& stream, const GatedActivationForward& args);

/// dgate = dy * up * f'(gate), dup = dy * f(gate); they may be gate and up.
struct GatedActivationBackward {
  const void* dy;
  const void* gate;
  const void* up;
  void* dgate;
  void* dup;
  std::int64_t count;
  Activation function;
  DType dtype;
};
void gated_activation_backward(const Stream& stream, const GatedActivationBackward& args);

}  // namespace tessera::kernels
