// SPDX-License-Identifier: Apache-2.0
// A model opened for use without training, on any number of ranks.
#pragma once

#include <memory>
#include <string>

#include "tessera/comm/communicator.hpp"
#include "tessera/comm/mesh.hpp"
#include "tessera/nn/model.hpp"
#include "tessera/parallel/pipeline_stages.hpp"
#include "tessera/parallel/unit_binding.hpp"
#include "tessera/zero/partitioned_optimizer.hpp"

namespace tessera::inference {

/// Where a model's weights are and what they are.
struct ModelLocation {
  /// A folder with config.json and safetensors, or a checkpoint file.
  std::string path;
  bool is_checkpoint = false;
  /// Hugging Face's config.json.
  std::string model_json;
  /// Resolved run file of a checkpoint; empty for a folder.
  std::string run_config;
};

/// Finds what `name` means: a Hugging Face folder, a checkpoint file, or a run's folder (its newest
/// whole checkpoint). Local. Errors: io saying what was looked for.
ModelLocation locate_model(const std::string& name);

/// The model with its weights on `device`. On several ranks the weights are partitioned, and units
/// are gathered while they are in use. With a pipeline so many ranks have the layers of its stages,
/// and only the ranks that have the same stage share it so: activations travel, not weights.
/// Collective: construction and every pass, over `group`, which must outlive it. Errors:
/// invalid_config for more stages than layers.
class ServedModel {
 public:
  ServedModel(Communicator& group, const ModelLocation& location, DType dtype, Device device = {},
              int pipeline = 1);

  nn::Model& model() { return *model_; }
  autograd::UnitHooks& hooks() { return *binding_; }
  Communicator& group() { return group_; }
  /// The ranks that divide the rows of a batch among them: all, or those of the same stages.
  Communicator& data_group() { return mesh_ ? mesh_->group(Axis::data) : group_; }
  /// Of all passes.
  const Stream& stream() const { return stream_; }

 private:
  void take_stages(int pipeline);

  Communicator& group_;
  Stream stream_;
  std::unique_ptr<Mesh> mesh_;  // with a pipeline
  parallel::TieGroups ties_;
  std::unique_ptr<nn::Model> model_;
  std::unique_ptr<zero::PartitionedOptimizer> weights_;
  std::unique_ptr<parallel::UnitBinding> binding_;
};

}  // namespace tessera::inference
