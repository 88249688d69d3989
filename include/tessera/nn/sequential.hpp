// SPDX-License-Identifier: Apache-2.0
// A network that is a list of layers with a loss at its end; any pipeline may cut it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tessera/nn/layer.hpp"
#include "tessera/nn/model.hpp"

namespace tessera::nn {

/// What a network is trained for: a loss of what its last layer makes of a batch, as a sum.
struct Objective {
  /// Seeds the backward pass with batch.gradient_scale, as autograd's losses do.
  std::function<autograd::Loss(autograd::Tape& tape, const autograd::Value& outputs,
                               const Batch& batch)>
      loss;
  /// How many losses that adds up.
  std::function<std::int64_t(const Tensor& targets)> count;
  DType target_type = DType::fp32;
};

/// Softmax cross-entropy of outputs [..., classes] and targets [...] int32 (negative: none).
Objective cross_entropy();
/// Of outputs and targets of as many numbers, fp32.
Objective squared_error();

/// A list of layers (DeepSpeed's PipelineModule, torch's Sequential). Parameters are called
/// "<layer>.<name in the layer>". On one rank it computes layer by layer; in the stages of a
/// pipeline (parallel::take_stages) each rank has the layers of its own.
///
/// Tied parameters (DeepSpeed's TiedLayerSpec): a layer may say that one of its parameters is that
/// of a layer before, on whatever stages they are. Each of the layers holds it, with a gradient of
/// its own that is added to the others' before the update, so that the bits do not depend on the
/// stages where two layers share it; a checkpoint has it once.
///
/// Batches: ids [samples, ...] of `input_type`, which the first layer is given (numbers in
/// options.dtype); targets [samples, ...] as the objective wants them, unless the batch brings a
/// loss of its own. Recompute::full keeps only the inputs of layers.
class Sequential final : public Network {
 public:
  /// Errors: not_supported for tensor and sequence axes, and Recompute::selective.
  Sequential(const ModelOptions& options, DType input_type, Objective objective);

  /// Appends a layer. `ties` maps names of its parameters to full names of earlier layers'. Before
  /// anything refers to units(). Errors: invalid_argument for a name that is taken, and for ties of
  /// other shapes or unknown names.
  Sequential& add(const std::string& name, std::unique_ptr<Layer> layer,
                  const std::map<std::string, std::string>& ties = {});
  /// The same for a layer that is made in place: add<Linear>("head", 64, 10).
  template <typename Made, typename... Arguments>
  Sequential& add(const std::string& name, Arguments&&... arguments) {
    return add(name, std::make_unique<Made>(std::forward<Arguments>(arguments)...));
  }

  std::vector<LayerInfo> layers() const override;
  StageOutput forward_stage(autograd::Tape& tape, int stage, const Batch& batch,
                            const autograd::Value& input) override;
  autograd::Loss forward_loss(autograd::Tape& tape, const Batch& batch) override;
  std::int64_t count_targets(const Tensor& targets) const override;
  Tensor predict(autograd::Tape& tape, const Tensor& inputs) override;
  bool takes_loss_function() const override { return true; }
  DType input_type() const override { return input_type_; }
  DType target_type() const override { return objective_.target_type; }
  void check(const Tensor& inputs, const Tensor* targets) const override;
  /// {"model_type": "sequential", "layers": [names]}: to tell checkpoints apart, not to build from.
  std::string config_json() const override;

 private:
  struct Entry {
    std::string name;
    std::unique_ptr<Layer> layer;
    std::vector<NamedParameter> parameters;  // by full names
    std::vector<int> units;                  // in units_, where this rank has the layer
  };

  std::vector<Unit> units_of_stages() override;
  void append_units(std::vector<Unit>& units, Entry& entry, int stage);
  bool is_tied(const std::string& parameter) const { return uses_.at(parameter) > 1; }
  void tie(const std::string& layer, NamedParameter& named, const std::string& to);
  autograd::Value first_value(autograd::Tape& tape, const Tensor& inputs) const;
  autograd::Value run(autograd::Tape& tape, int first, int last, autograd::Value x,
                      const Batch& batch);
  autograd::Value run_layer(autograd::Tape& tape, int index, const autograd::Value& x,
                            const Batch& batch);
  autograd::Loss loss(autograd::Tape& tape, const autograd::Value& outputs,
                      const Batch& batch) const;
  int count() const { return static_cast<int>(entries_.size()); }
  void require_whole(const char* what) const;

  DType input_type_;
  Objective objective_;
  std::vector<Entry> entries_;
  std::map<std::string, int> uses_;  // of each parameter, by layers
};

}  // namespace tessera::nn
