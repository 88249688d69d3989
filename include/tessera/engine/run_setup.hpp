// SPDX-License-Identifier: Apache-2.0
// Everything a run file names, opened: tokenizer, data, model.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "tessera/checkpoint/model_weights.hpp"
#include "tessera/comm/mesh.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/config/reader.hpp"
#include "tessera/config/run_config.hpp"
#include "tessera/data/sampler.hpp"
#include "tessera/data/tokenizer.hpp"
#include "tessera/device/device.hpp"
#include "tessera/nn/model.hpp"
#include "tessera/parallel/pipeline_stages.hpp"

namespace tessera::engine {

struct RunSetup {
  config::RunConfig config;  // resolved as far as the facts go
  Device device;             // of this rank
  std::unique_ptr<data::Tokenizer> tokenizer;
  std::optional<data::Batches> train;
  std::optional<data::Sequences> validation;
  std::unique_ptr<Mesh> mesh;  // nullptr if the run is only described
  parallel::TieGroups tie_groups;
  std::unique_ptr<nn::Model> model;  // this rank's part of it
  /// A line for each stage of the pipeline; empty without one.
  std::string stages;
  /// Of a model folder that has weights to start from.
  std::optional<checkpoint::ModelWeights> weights;
};

/// What the setup and `ranks` say to a run file's open values.
config::Facts run_facts(int ranks, const RunSetup& setup);

/// config.json text of a run's model: inline, or read from its folder.
std::string model_json(const config::RunConfig& config);

/// Chooses the device, opens tokenizer, mesh, data and model and fills in what depends on them.
/// Collective over runtime.world(). Errors: what the parts say; invalid_config when a sequence is
/// longer than the model's positions, or the tokenizer has more tokens than the model.
RunSetup open_run(Runtime& runtime, config::RunConfig config);

/// The same without data and mesh, by one process alone: what can be said without reading them. The
/// model is rank 0's part.
RunSetup describe_run(int ranks, config::RunConfig config);

}  // namespace tessera::engine
