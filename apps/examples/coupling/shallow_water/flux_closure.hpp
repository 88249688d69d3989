// SPDX-License-Identifier: Apache-2.0
// What a coarse grid's fluxes miss, learned from a fine one: a network sees the four cells around
// a face and says what to add to Rusanov's flux. Both directions share it, and a correction of
// fluxes keeps water and momentum.
#pragma once

#include <string>
#include <vector>

#include "tessera/comm/runtime.hpp"
#include "tessera/engine/learner.hpp"

#include "shallow_water.hpp"

class FluxClosure {
 public:
  explicit FluxClosure(tessera::Runtime& runtime);

  /// Shows the scales of inputs and corrections. Collective.
  void observe(const ShallowWater& coarse, const Faces& wanted);
  /// One step of training on all faces: `wanted` is the correction that would have been right.
  /// Returns the loss. Collective.
  double learn(const ShallowWater& coarse, const Faces& wanted);
  /// Adds the learned correction. Collective.
  void correct(const ShallowWater& coarse, Faces& flux);
  /// Optimizer steps so far, also those before a checkpoint that it continues from.
  int steps() { return static_cast<int>(learner_.engine().step()); }
  void save(const std::string& folder);
  /// Continues from the newest checkpoint, if there is one.
  void resume(const std::string& folder);

 private:
  void gather_inputs(const ShallowWater& coarse);
  void gather_samples(const ShallowWater& coarse, const Faces& wanted);

  tessera::engine::Learner learner_;
  std::vector<float> inputs_, targets_;  // [faces, 12], [faces, 3]
};
