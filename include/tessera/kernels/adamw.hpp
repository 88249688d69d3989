// SPDX-License-Identifier: Apache-2.0
// Adam update on a flat slice (Kingma and Ba 2015; decoupled decay: Loshchilov and Hutter 2019).
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"
#include "tessera/kernels/step_decision.hpp"

namespace tessera::kernels {

/// One pass over memory. g = gradient * gradient_scale, plus weight_decay * w unless decoupled;
/// m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; then w = w (1 - lr weight_decay) if
/// decoupled, and w -= (lr / correction1) m / (sqrt(v) / sqrt(correction2) + epsilon) with IEEE
/// division and square root. What does not depend on the element is computed in fp64 and rounded
/// once. Every element is computed by the same instructions wherever the slice begins or ends.
/// Bytes moved per parameter: 28 for fp32 (read w, g, m, v; write w, m, v) and for fp32 with a
/// rounded copy and an fp16 gradient, 26 for the split master with a bf16 gradient.
struct AdamW {
  void* parameter;               // fp32, or bf16 with low
  std::uint16_t* low = nullptr;  // the other half of a split master
  fp16* rounded = nullptr;       // with fp32: takes the new value, rounded to nearest even
  float* exp_avg;
  float* exp_avg_sq;
  const void* gradient;
  DType gradient_type;
  float gradient_scale = 1;
  double lr, beta1, beta2, epsilon, weight_decay;
  double correction1, correction2;  // 1 - beta^step, or 1 without bias correction
  bool decoupled = true;
  std::int64_t count;
  /// In memory of the device: whether there is an update, its gradient_scale, and which numbers it
  /// takes. nullptr: those above.
  const StepDecision* decision = nullptr;
  /// Instead of those above where the step before was skipped.
  struct Numbers {
    double lr, beta1, correction1, correction2;
  };
  Numbers after_skip{};
};
void adamw(const Stream& stream, const AdamW& args);

}  // namespace tessera::kernels
