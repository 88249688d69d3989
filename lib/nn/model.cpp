// SPDX-License-Identifier: Apache-2.0
// What all models share, and the choice of the model by its type.
#include "tessera/nn/model.hpp"

#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/nn/given_layer.hpp"
#include "tessera/nn/models/gpt2.hpp"
#include "tessera/nn/models/llama.hpp"
#include "tessera/nn/models/mlp.hpp"

namespace tessera::nn {

Recompute parse_recompute(const std::string& name) {
  if (name == "none") return Recompute::none;
  if (name == "selective") return Recompute::selective;
  if (name == "full") return Recompute::full;
  fail(Code::invalid_config,
       fmt::format("recompute '{}' is unknown: none, selective or full", name));
}

Network::Network(const ModelOptions& options) : options_(options) {
  TESSERA_CHECK(options.recompute_every > 0, Code::invalid_argument,
                fmt::format("recompute_every is {}; it must be at least 1: every layer",
                            options.recompute_every));
}

std::vector<NamedParameter> Network::parameters() const {
  std::vector<NamedParameter> all;
  for (const Unit& unit : units_)
    all.insert(all.end(), unit.parameters.begin(), unit.parameters.end());
  return all;
}

std::int64_t Network::parameter_count() const {
  std::int64_t count = 0;
  for (const NamedParameter& named : logical_parameters())
    count += named.parameter->partition.logical().numel();
  return count;
}

std::vector<NamedParameter> Network::logical_parameters() const {
  if (in_stages()) return logical_;
  std::vector<NamedParameter> each = parameters();
  std::set<std::string> names;
  std::erase_if(each,
                [&](const NamedParameter& named) { return !names.insert(named.name).second; });
  return each;
}

void Network::take_stages(const PipelineAxis& axis) {
  const auto layer_count = static_cast<int>(layers().size());
  TESSERA_CHECK(layer_count > 0, Code::not_supported,
                "this network cannot be cut into the stages of a pipeline; use mesh.pipeline 1");
  TESSERA_CHECK(!in_stages() && axis.stages() > 1 && axis.cuts.back() == layer_count,
                Code::invalid_argument,
                fmt::format("{} stages of a network of {} layers", axis.stages(), layer_count));
  logical_ = logical_parameters();
  pipeline_ = axis;
  units_ = units_of_stages();
}

std::vector<Unit> Network::units_of_stages() {
  std::vector<Unit> kept;
  for (const int stage : pipeline_.own) {
    const auto at = static_cast<std::size_t>(stage);
    for (int layer = pipeline_.cuts[at]; layer < pipeline_.cuts[at + 1]; ++layer) {
      Unit unit = units_[static_cast<std::size_t>(layer)];
      unit.first_use = unit.last_use = static_cast<int>(kept.size());
      unit.stage = stage;
      kept.push_back(std::move(unit));
    }
  }
  return kept;
}

StageOutput Network::forward_stage(autograd::Tape&, int, const Batch&, const autograd::Value&) {
  fail(Code::not_supported, "this network does not run in stages");
}

void Network::arrange_for_tensor_axis() {
  const TensorAxis& axis = options_.tensor;
  if (axis.size == 1) return;
  for (Unit& unit : units_) {
    const auto is_split = [](const NamedParameter& named) {
      return !named.parameter->partition.whole();
    };
    const auto is_shared = [](const NamedParameter& named) {
      return named.parameter->held_by_several;
    };
    const auto rest = std::ranges::stable_partition(
        unit.parameters, [&](const auto& named) { return is_split(named) && !is_shared(named); });
    std::ranges::stable_partition(rest, is_shared);
    for (const NamedParameter& named : unit.parameters)
      if (!is_shared(named)) named.parameter->counted = axis.rank == 0 || is_split(named);
  }
}

std::int64_t count_classes(const Tensor& targets) {
  const Tensor host = targets.on_host(current_stream(targets.device()));
  const auto* ids = host.as<std::int32_t>();
  return std::count_if(ids, ids + targets.numel(), [](std::int32_t id) { return id >= 0; });
}

std::int64_t Model::count_targets(const Tensor& targets) const {
  return count_classes(targets);
}

namespace {

std::string model_type_of(const std::string& config_json) {
  const auto json = nlohmann::json::parse(config_json, nullptr, false);
  TESSERA_CHECK(json.is_object(), Code::invalid_config,
                "the model's configuration is not a JSON object");
  const auto type = json.find("model_type");
  TESSERA_CHECK(type != json.end() && type->is_string(), Code::invalid_config,
                "the model's configuration has no model_type; known: gpt2, llama, mlp");
  return type->get<std::string>();
}

}  // namespace

std::unique_ptr<Model> make_model(const std::string& config_json, const ModelOptions& options,
                                  bool strict) {
  const std::string type = model_type_of(config_json);
  TESSERA_CHECK(type != "mlp", Code::not_supported,
                "model_type 'mlp' takes numbers, not tokens: programs that bring their own data "
                "train it through the library (engine::Learner, or tessera_network in C)");
  if (type == "llama")
    return std::make_unique<Llama>(LlamaConfig::from_json(config_json, strict), options);
  TESSERA_CHECK(type == "gpt2", Code::not_supported,
                fmt::format("model_type '{}' is not available yet; known: gpt2, llama", type));
  return std::make_unique<Gpt2>(Gpt2Config::from_json(config_json, strict), options);
}

std::unique_ptr<Network> make_network(const std::string& config_json, const ModelOptions& options,
                                      bool strict) {
  if (model_type_of(config_json) == "mlp")
    return std::make_unique<Mlp>(MlpConfig::from_json(config_json, strict), options);
  return make_model(config_json, options, strict);
}

std::unique_ptr<Network> make_network(const std::string& config_json, const ModelOptions& options,
                                      bool strict, std::vector<GivenLayer> layers) {
  if (layers.empty()) return make_network(config_json, options, strict);
  TESSERA_CHECK(model_type_of(config_json) == "mlp", Code::not_supported,
                "only networks of model_type mlp take layers of a program's own");
  return std::make_unique<Mlp>(MlpConfig::from_json(config_json, strict), options,
                               std::move(layers));
}

std::string find_in_files(const Network& model, const NamedParameter& named,
                          const std::function<std::optional<Shape>(const std::string&)>& shape_of) {
  const std::vector<std::string> names = model.names_in_files(named.name);
  const Shape& wanted = named.parameter->partition.logical();
  for (const std::string& name : names) {
    const std::optional<Shape> shape = shape_of(name);
    if (!shape) continue;
    TESSERA_CHECK(*shape == wanted, Code::io,
                  fmt::format("tensor '{}' has shape {} in the file, the model's configuration "
                              "wants {}",
                              name, shape->to_string(), wanted.to_string()));
    return name;
  }
  fail(Code::io, fmt::format("the model folder has no tensor '{}' of shape {}",
                             fmt::join(names, "' or '"), wanted.to_string()));
}

}  // namespace tessera::nn
