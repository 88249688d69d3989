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

/// Elements whose losses are added up to one number.
inline constexpr std::int64_t kLossBlock = 1024;

/// sums[i] = sum of the losses of block i, in fp64 (the last may be short). Defined to the bit,
/// whatever the device: lane l = 0 … 31 adds the block's elements l, l + 32, … one after the other;
/// then lanes 0 … 15 add those 16 further on, lanes 0 … 7 those 8 further on, and so to lane 0.
/// If dprediction is set: dprediction[i] = slope(d) * scale, where |d| has the slope 0 at 0.
struct ElementLoss {
  const void* prediction;       // [count]
  const float* target;          // [count]
  double* sums;                 // [ceil(count / kLossBlock)]
  void* dprediction = nullptr;  // [count], of the prediction's type
  float scale = 1;
  std::int64_t count;
  ElementLossKind kind;
  float delta = 1;  // of Huber's loss
  DType dtype;
};
void element_loss(const Stream& stream, const ElementLoss& args);

}  // namespace tessera::kernels
