// SPDX-License-Identifier: Apache-2.0
// What update rules read of a step's decision when they run.
#pragma once

#include "tessera/kernels/step_decision.hpp"

namespace tessera::kernels::cuda {

/// With a decision in device memory, or without.
struct Verdict {
  float gradient_scale;
  const StepDecision* decision;

  __device__ __forceinline__ float scale() const {
    return decision != nullptr ? decision->gradient_scale : gradient_scale;
  }
  __device__ __forceinline__ bool applied() const {
    return decision == nullptr || decision->applied != 0;
  }
  /// Of the two sets of numbers for a step, the one that holds.
  template <typename Numbers>
  __device__ __forceinline__ const Numbers& choose(const Numbers& usual,
                                                   const Numbers& after_skip) const {
    return decision != nullptr && decision->former_applied == 0 ? after_skip : usual;
  }
};

}  // namespace tessera::kernels::cuda
