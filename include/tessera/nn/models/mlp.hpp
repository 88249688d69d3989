// SPDX-License-Identifier: Apache-2.0
// A feed-forward network (multilayer perceptron) for the numbers of a simulation.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tessera/nn/given_layer.hpp"
#include "tessera/nn/model.hpp"
#include "tessera/nn/standardization.hpp"

namespace tessera::nn {

struct MlpConfig {
  /// Inputs, hidden widths, outputs.
  std::vector<std::int64_t> layer_sizes;
  std::string activation = "gelu";     ///< relu, gelu, gelu_new, silu or tanh
  bool residual = false;               ///< hidden layers that keep the width add their input
  std::string normalization = "none";  ///< or layer_norm, before each hidden activation
  double layer_norm_eps = 1e-5;
  std::string loss = "mse";  ///< mse, l1, huber or cross_entropy
  double huber_delta = 1;
  bool normalize_inputs = false;   ///< by mean and deviation of what observe() saw
  bool normalize_outputs = false;  ///< not with cross_entropy; the loss is of normalised numbers

  std::int64_t inputs() const { return layer_sizes.front(); }
  std::int64_t outputs() const { return layer_sizes.back(); }

  /// Reads and checks JSON. With `strict`, an unknown key is an error that names the nearest known.
  static MlpConfig from_json(const std::string& text, bool strict);
  /// Throws invalid_config, naming the key and the value.
  void validate() const;
  std::string to_json() const;
};

/// Batches: ids [samples, ...] fp32 with `inputs` numbers each; targets [samples, ...] fp32 with
/// `outputs` numbers each, for cross_entropy [samples] int32 classes (negative: none). The loss is
/// a sum over numbers, respectively samples. Units are layers; weights are [outputs, inputs].
/// Layers may be given: the unit of one without parameters is empty. Without
/// recomputation: not_supported.
class Mlp final : public Network {
 public:
  /// Errors: invalid_argument for layers that are given and cannot be.
  Mlp(const MlpConfig& config, const ModelOptions& options, std::vector<GivenLayer> given = {});
  Mlp(const Mlp&) = delete;
  Mlp& operator=(const Mlp&) = delete;

  const MlpConfig& config() const { return config_; }
  Standardization& input_statistics() { return input_statistics_; }
  Standardization& output_statistics() { return output_statistics_; }

  std::string config_json() const override { return config_.to_json(); }
  void check(const Tensor& inputs, const Tensor* targets) const override;
  autograd::Loss forward_loss(autograd::Tape& tape, const Batch& batch) override;
  std::int64_t count_targets(const Tensor& targets) const override;
  /// inputs as in a batch -> [samples, outputs] fp32; for cross_entropy these are logits.
  Tensor predict(autograd::Tape& tape, const Tensor& inputs) override;
  bool takes_loss_function() const override { return true; }
  std::vector<Standardization*> statistics() override;
  DType target_type() const override;
  DType input_type() const override { return DType::fp32; }
  std::string extra_state() const override;
  void set_extra_state(const std::string& text) override;

  struct Layer {
    Parameter weight, bias;
    Parameter norm_weight, norm_bias;  // of hidden layers with layer_norm
    std::optional<GivenLayer> given;   // then it has none of these
    Parameter own;                     // of a given one with parameters
  };

 private:
  void add_layer(std::int64_t inputs, std::int64_t outputs, bool hidden);
  void add_given_layer(const GivenLayer& given);
  autograd::Value compute(autograd::Tape& tape, int index, const autograd::Value& x);
  autograd::Value forward(autograd::Tape& tape, const Tensor& inputs);
  autograd::Value hidden_layer(autograd::Tape& tape, Layer& layer, const autograd::Value& x);
  autograd::Loss given_loss(autograd::Tape& tape, const autograd::Value& outputs,
                            const Batch& batch) const;
  bool has_norm() const { return config_.normalization == "layer_norm"; }

  MlpConfig config_;
  std::vector<std::unique_ptr<Layer>> layers_;  // their parameters have addresses
  Standardization input_statistics_, output_statistics_;
};

}  // namespace tessera::nn
