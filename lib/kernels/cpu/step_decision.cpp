// SPDX-License-Identifier: Apache-2.0
// Decisions about a step on the CPU: what the operations mean, literally.
#include "tessera/kernels/step_decision.hpp"

#include <algorithm>
#include <cmath>

#include "tessera/kernels/reduce.hpp"

#include "kernels/cuda/operations.hpp"

namespace tessera::kernels {

void block_total(const Stream& stream, const BlockTotal& args) {
  if (!stream.device().is_cpu()) return cuda::block_total(stream, args);
  double total = 0;
  for (std::int64_t g = 0; g < args.groups; ++g) {
    double sum = 0;
    for (std::int64_t b = args.first[g]; b < args.first[g + 1]; ++b) sum += args.blocks[b];
    args.group_sums[g] = sum;
    total += sum;
  }
  *args.total = total;
}

void decide_step(const Stream& stream, const DecideStep& args) {
  if (!stream.device().is_cpu()) return cuda::decide_step(stream, args);
  double squares = 0;
  for (std::int64_t i = 0; i < args.count; ++i) squares += args.squares[i];
  const double norm = std::sqrt(squares) / args.loss_scale;
  StepDecision decision{};
  decision.norm = norm;
  decision.former_applied = args.decision->applied;
  if (std::isfinite(norm)) {
    decision.clip_coefficient =
        args.largest_norm == 0 ? 1 : std::min(1.0, args.largest_norm / (norm + 1e-6));
    decision.gradient_scale = static_cast<float>(decision.clip_coefficient / args.loss_scale);
    decision.applied = 1;
  }
  *args.decision = decision;
}

void find_non_finite_piece(const Stream& stream, const FindNonFinitePiece& args) {
  if (!stream.device().is_cpu()) return cuda::find_non_finite_piece(stream, args);
  if (args.decision->applied != 0) return;
  for (std::int64_t i = 0; i < args.count; ++i) {
    const GradientPiece& piece = args.pieces[i];
    if (first_non_finite(stream, piece.data, args.dtype, piece.count) < 0) continue;
    args.decision->non_finite_from_last = ~static_cast<std::uint32_t>(i);
    return;
  }
}

}  // namespace tessera::kernels
