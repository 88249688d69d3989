// SPDX-License-Identifier: Apache-2.0
// The feed-forward network's parameters, forward pass and loss.
#include "tessera/nn/models/mlp.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/autograd/activation.hpp"
#include "tessera/autograd/dropout.hpp"
#include "tessera/autograd/given_layer.hpp"
#include "tessera/autograd/layer_norm.hpp"
#include "tessera/autograd/linear.hpp"
#include "tessera/autograd/losses.hpp"
#include "tessera/base/error.hpp"

#include "nn/models/activation_name.hpp"

namespace tessera::nn {
namespace {

using autograd::Tape;
using autograd::Value;
using Kind = Initialization::Kind;

/// He et al. (2015) for what cuts half of its inputs off, else LeCun et al. (1998).
Initialization weight_start(std::int64_t inputs, bool halved) {
  const double gain = halved ? 2.0 : 1.0;
  return {Kind::normal, static_cast<float>(std::sqrt(gain / static_cast<double>(inputs)))};
}

/// [samples, width] fp32 over the same elements.
Tensor as_rows(const Tensor& tensor, std::int64_t width, const char* what) {
  const std::int64_t samples = tensor.shape().rank() > 0 ? tensor.size(0) : 1;
  TESSERA_CHECK(tensor.dtype() == DType::fp32 && tensor.numel() == samples * width,
                Code::invalid_argument,
                fmt::format("{} are {} of shape {}, but the network wants fp32 [samples, {}]", what,
                            to_string(tensor.dtype()), tensor.shape().to_string(), width));
  return tensor.view({samples, width});
}

kernels::ElementLossKind element_loss_of(const std::string& loss) {
  if (loss == "l1") return kernels::ElementLossKind::absolute;
  if (loss == "huber") return kernels::ElementLossKind::huber;
  return kernels::ElementLossKind::squared;
}

void check_options(const ModelOptions& options) {
  TESSERA_CHECK(
      options.dtype == DType::fp32 || options.dtype == DType::bf16 || options.dtype == DType::fp16,
      Code::not_supported,
      fmt::format("a network cannot compute in {}; use fp32, bf16 or fp16",
                  to_string(options.dtype)));
  TESSERA_CHECK(options.recompute == Recompute::none, Code::not_supported,
                "recomputation of model_type mlp is not available yet; use run.recompute none");
}

void check_given(const std::vector<GivenLayer>& given, int layers) {
  for (const GivenLayer& layer : given) {
    TESSERA_CHECK(
        layer.index >= 0 && layer.index < layers, Code::invalid_argument,
        fmt::format("layer {} is given, but the network has {}, from 0", layer.index, layers));
    TESSERA_CHECK(std::ranges::count(given, layer.index, &GivenLayer::index) == 1,
                  Code::invalid_argument, fmt::format("layer {} is given twice", layer.index));
    TESSERA_CHECK(layer.functions.forward && layer.functions.backward, Code::invalid_argument,
                  fmt::format("the given layer {} needs both forward and backward", layer.index));
    TESSERA_CHECK(layer.parameters >= 0 && layer.deviation >= 0 && std::isfinite(layer.deviation),
                  Code::invalid_argument,
                  fmt::format("the given layer {} has {} parameters of deviation {}; neither may "
                              "be negative",
                              layer.index, layer.parameters, layer.deviation));
  }
}

}  // namespace

Mlp::Mlp(const MlpConfig& config, const ModelOptions& options, std::vector<GivenLayer> given)
    : Network(options),
      config_(config),
      input_statistics_((config.validate(), config.inputs())),
      output_statistics_(config.outputs()) {
  check_options(options);
  const auto& sizes = config_.layer_sizes;
  const int count = static_cast<int>(sizes.size()) - 1;
  check_given(given, count);
  for (std::size_t i = 1; i < sizes.size(); ++i) {
    const auto own = std::ranges::find(given, static_cast<int>(i) - 1, &GivenLayer::index);
    if (own != given.end())
      add_given_layer(*own);
    else
      add_layer(sizes[i - 1], sizes[i], i + 1 < sizes.size());
  }
}

void Mlp::add_given_layer(const GivenLayer& given) {
  Layer& layer = *layers_.emplace_back(std::make_unique<Layer>());
  layer.given = given;
  const std::string name = fmt::format("layers.{}", given.index);
  Unit unit{name, {}, given.index, given.index};
  if (given.parameters > 0) {
    const Kind start = given.deviation > 0 ? Kind::normal : Kind::zeros;
    layer.own = Parameter(Shape{given.parameters}, {start, given.deviation});
    unit.parameters.push_back({name + ".own", &layer.own});
  }
  units_.push_back(std::move(unit));
}

void Mlp::add_layer(std::int64_t inputs, std::int64_t outputs, bool hidden) {
  const int index = static_cast<int>(layers_.size());
  Layer& layer = *layers_.emplace_back(std::make_unique<Layer>());
  const bool halved = hidden && config_.activation != "tanh";
  layer.weight = Parameter(Shape{outputs, inputs}, weight_start(inputs, halved));
  layer.bias = Parameter(Shape{outputs}, {Kind::zeros});
  const std::string name = fmt::format("layers.{}", index);
  Unit unit{name, {{name + ".weight", &layer.weight}, {name + ".bias", &layer.bias}}, index, index};
  if (hidden && has_norm()) {
    layer.norm_weight = Parameter(Shape{outputs}, {Kind::ones});
    layer.norm_bias = Parameter(Shape{outputs}, {Kind::zeros});
    unit.parameters.push_back({name + ".norm.weight", &layer.norm_weight});
    unit.parameters.push_back({name + ".norm.bias", &layer.norm_bias});
  }
  units_.push_back(std::move(unit));
}

void Mlp::check(const Tensor& inputs, const Tensor* targets) const {
  const Tensor rows = as_rows(inputs, config_.inputs(), "the inputs");
  if (targets == nullptr) return;
  const bool classes = config_.loss == "cross_entropy";
  const Tensor wanted = classes ? *targets : as_rows(*targets, config_.outputs(), "the targets");
  const std::int64_t samples = classes ? wanted.numel() : wanted.size(0);
  TESSERA_CHECK(
      targets->dtype() == target_type() && samples == rows.size(0), Code::invalid_argument,
      fmt::format("{} targets of shape {} for {} samples of inputs", to_string(targets->dtype()),
                  targets->shape().to_string(), rows.size(0)));
}

Value Mlp::hidden_layer(Tape& tape, Layer& layer, const Value& x) {
  Value y = autograd::linear(tape, x, layer.weight, &layer.bias, autograd::WeightLayout::out_in);
  if (has_norm())
    y = autograd::layer_norm(tape, y, layer.norm_weight, layer.norm_bias,
                             static_cast<float>(config_.layer_norm_eps));
  y = autograd::activation(tape, y, parse_activation("activation", config_.activation));
  const bool adds = config_.residual && layer.weight.shape()[0] == layer.weight.shape()[1];
  return adds ? autograd::dropout_add(tape, x, std::move(y), {}) : y;
}

Value Mlp::compute(Tape& tape, int index, const Value& x) {
  Layer& layer = *layers_[static_cast<std::size_t>(index)];
  if (layer.given)
    return autograd::given_layer(tape, x, layer.given->parameters > 0 ? &layer.own : nullptr,
                                 config_.layer_sizes[static_cast<std::size_t>(index) + 1],
                                 layer.given->functions);
  if (index + 1 < static_cast<int>(layers_.size())) return hidden_layer(tape, layer, x);
  return autograd::linear(tape, x, layer.weight, &layer.bias, autograd::WeightLayout::out_in);
}

Value Mlp::forward(Tape& tape, const Tensor& inputs) {
  Tensor rows = as_rows(inputs, config_.inputs(), "the inputs");
  if (config_.normalize_inputs) rows = input_statistics_.apply(rows, tape.stream());
  Value x(rows.to(options_.dtype, tape.stream()));
  for (int i = 0; i < static_cast<int>(layers_.size()); ++i) {
    tape.enter(i);
    x = compute(tape, i, x);
    tape.leave(i);
  }
  return x;
}

autograd::Loss Mlp::forward_loss(Tape& tape, const Batch& batch) {
  const Value outputs = forward(tape, batch.ids);
  if (batch.loss) return given_loss(tape, outputs, batch);
  if (config_.loss == "cross_entropy")
    return autograd::cross_entropy_loss(tape, outputs, batch.targets, batch.gradient_scale);
  Tensor targets = as_rows(batch.targets, config_.outputs(), "the targets");
  if (config_.normalize_outputs) targets = output_statistics_.apply(targets, tape.stream());
  return autograd::element_loss(tape, outputs, targets, element_loss_of(config_.loss),
                                static_cast<float>(config_.huber_delta), batch.gradient_scale);
}

/// The program sees outputs in its own units, so its gradient is stretched on the way back.
autograd::Loss Mlp::given_loss(Tape& tape, const Value& outputs, const Batch& batch) const {
  if (!config_.normalize_outputs)
    return autograd::given_loss(tape, outputs, batch.loss, batch.gradient_scale);
  const Stream& stream = tape.stream();
  const auto in_its_units = [&](const Tensor& scaled, const Tensor& gradients) {
    const Tensor seen = output_statistics_.invert(scaled, stream);
    stream.synchronize();
    const double sum = batch.loss(seen, gradients);
    output_statistics_.stretch(gradients, stream);
    return sum;
  };
  return autograd::given_loss(tape, outputs, in_its_units, batch.gradient_scale);
}

std::int64_t Mlp::count_targets(const Tensor& targets) const {
  return config_.loss == "cross_entropy" ? count_classes(targets) : targets.numel();
}

Tensor Mlp::predict(Tape& tape, const Tensor& inputs) {
  TESSERA_CHECK(!tape.recording(), Code::invalid_argument,
                "predictions are for reading only: use a tape that does not record");
  const Tensor outputs = forward(tape, inputs).data().to(DType::fp32, tape.stream());
  return config_.normalize_outputs ? output_statistics_.invert(outputs, tape.stream()) : outputs;
}

std::vector<Standardization*> Mlp::statistics() {
  return {config_.normalize_inputs ? &input_statistics_ : nullptr,
          config_.normalize_outputs ? &output_statistics_ : nullptr};
}

DType Mlp::target_type() const {
  return config_.loss == "cross_entropy" ? DType::int32 : DType::fp32;
}

std::string Mlp::extra_state() const {
  using Json = nlohmann::ordered_json;
  Json json = Json::object();
  if (config_.normalize_inputs) json["inputs"] = Json::parse(input_statistics_.to_json());
  if (config_.normalize_outputs) json["outputs"] = Json::parse(output_statistics_.to_json());
  return json.empty() ? std::string() : json.dump();
}

void Mlp::set_extra_state(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  const auto read = [&](const char* side, bool wanted, Standardization& statistics) {
    if (!wanted) return;
    TESSERA_CHECK(json.is_object() && json.contains(side), Code::io,
                  fmt::format("the checkpoint has no statistics of {}", side));
    statistics = Standardization::parse(json[side].dump(), statistics.features());
  };
  read("inputs", config_.normalize_inputs, input_statistics_);
  read("outputs", config_.normalize_outputs, output_statistics_);
}

}  // namespace tessera::nn
