// SPDX-License-Identifier: Apache-2.0
// A trainable array as operations see it: where its elements are now and where its gradient goes.
#pragma once

#include "tessera/tensor/tensor.hpp"

namespace tessera::autograd {

/// Operations keep the address of a Weight, never its tensors, and look them up when they run: the
/// owner attaches `value` and `gradient` while the weight's unit is in use (UnitHooks) and may take
/// them away in between.
struct Weight {
  Tensor value;
  /// fp32 or the type of `value`; needed from the unit's acquire(backward) on, when trainable.
  Tensor gradient;
  /// False: the next contribution overwrites `gradient` (no need to clear it); true: it is added.
  /// Set by the operations, cleared by the owner before each micro-batch, or each step where
  /// micro-batches accumulate in `gradient`.
  bool gradient_written = false;
  bool trainable = true;
};

}  // namespace tessera::autograd
