// SPDX-License-Identifier: Apache-2.0
// Runs of elements with equal hyper-parameters, and their update.
#include "zero/slice_update.hpp"

#include <span>

namespace tessera::zero {

std::vector<FlatPiece> SliceUpdate::runs(int unit, Range range) const {
  std::vector<FlatPiece> runs;
  const ParameterRule* last = nullptr;
  for (const FlatPiece& piece : context.layout.pieces(unit, range)) {
    const ParameterRule& own = rules[static_cast<std::size_t>(piece.parameter)];
    const bool continues = merges_parameters && last != nullptr && *last == own;
    last = &own;
    if (!own.trainable) continue;
    if (continues)
      runs.back().count += piece.count;
    else
      runs.push_back(piece);
  }
  return runs;
}

void SliceUpdate::apply(int unit, Range range, const UpdateValues& values) const {
  for (const FlatPiece& run : runs(unit, range)) update(unit, run, values);
}

void SliceUpdate::update(int unit, const FlatPiece& run, const UpdateValues& values) const {
  std::vector<float*> state;
  for (std::size_t i = 0; i < states.states(); ++i)
    state.push_back(states.state(i, unit, run.unit_begin));
  void* weights = parameters.held(run, unit);
  float* master = states.master(unit, run.unit_begin);
  const optim::Slice slice{
      .parameter = master != nullptr ? master : weights,
      .low = states.low(unit, run.unit_begin),
      .rounded = master != nullptr ? static_cast<fp16*>(weights) : nullptr,
      .gradient = gradients.held(run, unit),
      .gradient_type = gradients.held_type(),
      .states = state,
      .count = run.count,
      .lr = values.usual.lr,
      .weight_decay = rules[static_cast<std::size_t>(run.parameter)].weight_decay,
      .momentum = values.usual.momentum,
      .step = values.usual.step,
      .decision = values.decision,
      .after_skip = values.after_skip};
  rule.update(context.stream, slice);
}

}  // namespace tessera::zero
