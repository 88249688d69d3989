// SPDX-License-Identifier: Apache-2.0
// The part of a run file that a program with data of its own needs.
#pragma once

#include <string>

#include "tessera/engine/engine.hpp"
#include "tessera/nn/model.hpp"

namespace tessera::engine {

struct GuestConfig {
  EngineOptions engine;
  std::string model_json;  ///< empty without a model
  nn::ModelOptions model;
  std::int64_t accumulation = 1;  ///< micro-batches of a step
};

/// Reads YAML or JSON text with the sections `model`, `engine` and `run` of a run file, each of
/// which may be missing, or a DeepSpeed configuration alone. Batch sizes may be missing too: the
/// program decides how many samples it brings. Errors: as config::read_run_text; invalid_config for
/// keys that only training from files obeys.
GuestConfig read_guest_config(const std::string& text, int ranks);

}  // namespace tessera::engine
