// SPDX-License-Identifier: Apache-2.0
// The part of a run file that a program with data of its own needs.
#pragma once

#include <functional>
#include <string>

#include "tessera/comm/runtime.hpp"
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
/// program decides how many samples it brings. `device` is the CPU where the text does not name it:
/// a program knows where its arrays and functions are. Collective: over runtime.world(). Errors,
/// the same on every rank: as config::read_run_text and choose_device; invalid_config for keys that
/// only training from files obeys.
GuestConfig read_guest_config(const std::string& text, Runtime& runtime);
/// The same for the ranks of a group; `gpu` names this rank's.
GuestConfig read_guest_config(const std::string& text, Communicator& group,
                              const std::function<Device()>& gpu);

}  // namespace tessera::engine
