// SPDX-License-Identifier: Apache-2.0
// What becomes of a step, decided where its gradients are: the global norm, clipping, and whether
// the step is skipped. The host need not know before the update is enqueued.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels {

/// Lies in memory of the device, where the update rules read it, and is copied to the host. Begins
/// as zeros.
struct StepDecision {
  double norm;                  ///< of the gradients without their loss scale; any value, also NaN
  double clip_coefficient;      ///< 0 where the step is skipped
  float gradient_scale;         ///< multiplies every gradient: clip_coefficient / loss scale
  std::int32_t applied;         ///< 0: the norm is not finite, and nothing may change
  std::int32_t former_applied;  ///< `applied` of the decision before this one
  std::uint32_t non_finite_from_last;  ///< set by find_non_finite_piece

  /// Index of the first piece that find_non_finite_piece found, or -1.
  std::int32_t non_finite_piece() const {
    return non_finite_from_last == 0 ? -1 : static_cast<std::int32_t>(~non_finite_from_last);
  }
};

/// Adds block sums (kernels/reduce.hpp): group g is blocks[first[g]] … blocks[first[g + 1] - 1],
/// one after the other from 0; the total is the groups' sums, one after the other from 0. The same
/// bits on every device.
struct BlockTotal {
  const double* blocks;
  const std::int64_t* first;  // groups + 1
  std::int64_t groups;
  double* group_sums;  // scratch, `groups` long
  double* total;
};
void block_total(const Stream& stream, const BlockTotal& args);

/// norm = sqrt(squares[0] + squares[1] + …) / loss_scale, added in that order; clip_coefficient =
/// min(1, largest_norm / (norm + 1e-6)), or 1 where largest_norm is 0. All in fp64, rounded as IEEE
/// says: the same bits on every device.
struct DecideStep {
  const double* squares;
  std::int64_t count;
  double loss_scale;
  double largest_norm;
  StepDecision* decision;
};
void decide_step(const Stream& stream, const DecideStep& args);

/// Part of a gradient.
struct GradientPiece {
  const void* data;
  std::int64_t count;
};
/// Of a step that is skipped: notes the first piece that has a NaN or infinity. Does nothing for
/// others.
struct FindNonFinitePiece {
  const GradientPiece* pieces;  // in memory of the device
  std::int64_t count;
  DType dtype;
  StepDecision* decision;
};
void find_non_finite_piece(const Stream& stream, const FindNonFinitePiece& args);

}  // namespace tessera::kernels
