// SPDX-License-Identifier: Apache-2.0
// Stochastic gradient descent with momentum on a flat slice, as torch.optim.SGD defines it.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"
#include "tessera/kernels/step_decision.hpp"

namespace tessera::kernels {

/// g = gradient * gradient_scale + weight_decay * w; buffer = momentum * buffer + (1 - dampening) *
/// g (on the first step buffer = g); g = nesterov ? g + momentum * buffer : buffer; w -= lr * g.
/// Without momentum, buffer may be nullptr.
struct Sgd {
  void* parameter;  // as in AdamW
  std::uint16_t* low = nullptr;
  fp16* rounded = nullptr;
  float* momentum_buffer = nullptr;
  const void* gradient;
  DType gradient_type;
  float gradient_scale = 1;
  double lr, momentum, dampening, weight_decay;
  bool nesterov = false;
  bool first_step = false;
  std::int64_t count;
  const StepDecision* decision = nullptr;  // as in AdamW
  struct Numbers {
    double lr;
    bool first_step;
  };
  Numbers after_skip{};
};
void sgd(const Stream& stream, const Sgd& args);

}  // namespace tessera::kernels
