// SPDX-License-Identifier: Apache-2.0
// Decides about a step where the gradients are: the norm over all ranks, clipping, skipping.
#pragma once

#include <vector>

#include "tessera/kernels/step_decision.hpp"

#include "zero/context.hpp"
#include "zero/gradient_store.hpp"
#include "zero/slice_norm.hpp"

namespace tessera::zero {

/// A decision on its way to the host.
class PendingDecision {
 public:
  /// Copies what the device will have decided.
  PendingDecision(const Stream& stream, const kernels::StepDecision* decision);
  PendingDecision(PendingDecision&&) = default;
  PendingDecision& operator=(PendingDecision&&) = delete;
  ~PendingDecision();

  /// Whether the host knows without waiting: always on the CPU.
  bool immediate() const { return stream_.device().is_cpu(); }
  /// Waits for it.
  const kernels::StepDecision& get();

 private:
  Stream stream_;
  Buffer memory_;
  Event arrived_;
};

class StepJudge {
 public:
  /// The gradients are looked through where a step is skipped, and do not move.
  StepJudge(const Context& context, const SliceNorm& norm, const GradientStore& gradients);
  /// Enqueues the decision about what the norm recorded. Collective; counted as scalars.
  PendingDecision judge(double loss_scale);
  /// Where update rules read the decision of the last judge(): memory of the device.
  const kernels::StepDecision* decision() const {
    return decision_.as<const kernels::StepDecision>();
  }
  /// The parameter of this rank's first gradient that is not finite, by the decision; -1: none.
  int non_finite_parameter(const kernels::StepDecision& decision) const;

 private:
  void list_pieces(const GradientStore& gradients);
  void exchange_squares();

  Context context_;
  const SliceNorm& norm_;
  DType gradient_type_;
  std::vector<int> parameters_;  // of each piece
  // On the device:
  Buffer pieces_;    // kernels::GradientPiece
  Buffer squares_;   // fp64, of each rank
  Buffer decision_;  // kernels::StepDecision
};

}  // namespace tessera::zero
