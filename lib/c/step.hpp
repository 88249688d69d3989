// SPDX-License-Identifier: Apache-2.0
// The outcome of a step for C.
#pragma once

#include "tessera/engine/engine.hpp"

#include "c/guard.hpp"

namespace tessera::c {

inline void give_step(tessera_step* target, const engine::StepOutcome& outcome) {
  tessera_step step{};
  step.step = outcome.step;
  step.loss = outcome.loss;
  step.learning_rate = outcome.learning_rate;
  step.gradient_norm = outcome.gradient_norm;
  step.loss_scale = outcome.loss_scale;
  step.skipped = outcome.skipped ? 1 : 0;
  give(target, step, "tessera_step");
}

}  // namespace tessera::c
