// SPDX-License-Identifier: Apache-2.0
// Losses that compare numbers one by one, fused with their gradients.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels {

/// Of d = prediction - target: d^2; |d|; and Huber's (1964): d^2 / 2 up to |d| = delta, from there
/// on the tangent delta (|d| - delta / 2).
enum class ElementLossKind : std::uint8_t { squared, absolute, huber };

/// Returns the sum of the losses in fp64, by fixed blocks, so that it depends on no thread count.
/// If dprediction is set: dprediction[i] = slope(d) * scale, where |d| has the slope 0 at 0.
/// CPU only: not_supported on a GPU's stream.
struct ElementLoss {
  const void* prediction;       // [count]
  const float* target;          // [count]
  void* dprediction = nullptr;  // [count], of the prediction's type
  float scale = 1;
  std::int64_t count;
  ElementLossKind kind;
  float delta = 1;  // of Huber's loss
  DType dtype;
};
double element_loss(const Stream& stream, const ElementLoss& args);

}  // namespace tessera::kernels
