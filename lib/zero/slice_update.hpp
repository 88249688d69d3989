// SPDX-License-Identifier: Apache-2.0
// The update rule applied to what this rank holds.
#pragma once

#include <cstdint>
#include <vector>

#include "zero/context.hpp"
#include "zero/gradient_store.hpp"
#include "zero/held_states.hpp"
#include "zero/parameter_store.hpp"

namespace tessera::zero {

/// What one step applies to every parameter: the usual numbers, or those that hold if the step
/// before was skipped, and the rest from the decision.
struct UpdateValues {
  optim::StepNumbers usual, after_skip;
  const kernels::StepDecision* decision;
};

/// How one parameter is updated.
struct ParameterRule {
  bool trainable;
  double weight_decay;
  bool operator==(const ParameterRule&) const = default;
};

struct SliceUpdate {
  const Context& context;
  const optim::UpdateRule& rule;
  const std::vector<ParameterRule>& rules;  // by parameter
  ParameterStore& parameters;
  const GradientStore& gradients;
  HeldStates& states;
  /// Neighbours with equal rules are one run; a caller's arrays are not neighbours.
  bool merges_parameters;

  /// Updates the trainable parameters inside a range of a unit that this rank holds.
  void apply(int unit, Range range, const UpdateValues& values) const;

 private:
  std::vector<FlatPiece> runs(int unit, Range range) const;
  void update(int unit, const FlatPiece& run, const UpdateValues& values) const;
};

}  // namespace tessera::zero
