// SPDX-License-Identifier: Apache-2.0
// Adam update on a flat slice (Kingma and Ba 2015; decoupled decay: Loshchilov and Hutter 2019).
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels {

/// One pass over memory. g = gradient * gradient_scale; L2 mode adds weight_decay * w to g first,
/// decoupled mode multiplies w by 1 - lr * weight_decay. Then m, v are updated and w -= lr * (m /
/// correction1) / (sqrt(v / correction2) + epsilon) with IEEE division and square root. Every
/// element is computed by the same instructions wherever the slice begins or ends. Bytes moved per
/// parameter: 28 for fp32 (read w, g, m, v; write w, m, v), 26 for the split master with a bf16
/// gradient.
struct AdamW {
  void* parameter;               // fp32, or bf16 with low
  std::uint16_t* low = nullptr;  // the other half of a split master
  float* exp_avg;
  float* exp_avg_sq;
  const void* gradient;
  DType gradient_type;
  float gradient_scale = 1;
  float lr, beta1, beta2, epsilon, weight_decay;
  float correction1, correction2;  // 1 - beta^step
  bool decoupled = true;
  std::int64_t count;
};
void adamw(const Stream& stream, const AdamW& args);

}  // namespace tessera::kernels
