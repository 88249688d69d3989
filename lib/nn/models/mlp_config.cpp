// SPDX-License-Identifier: Apache-2.0
// Reads, checks and writes the configuration of a feed-forward network.
#include <cmath>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/base/nearest_name.hpp"
#include "tessera/nn/models/mlp.hpp"

#include "nn/models/activation_name.hpp"

namespace tessera::nn {
namespace {

using Json = nlohmann::json;

/// Calls visit(key, member) for every key.
template <typename Config, typename Visit>
void visit_keys(Config& config, Visit&& visit) {
  visit("layer_sizes", config.layer_sizes);
  visit("activation", config.activation);
  visit("residual", config.residual);
  visit("normalization", config.normalization);
  visit("layer_norm_eps", config.layer_norm_eps);
  visit("loss", config.loss);
  visit("huber_delta", config.huber_delta);
  visit("normalize_inputs", config.normalize_inputs);
  visit("normalize_outputs", config.normalize_outputs);
}

void refuse_unknown_keys(const Json& json) {
  std::vector<std::string> known = {"model_type"};
  MlpConfig config;
  visit_keys(config, [&](const char* key, auto&) { known.emplace_back(key); });
  for (const auto& [key, value] : json.items())
    TESSERA_CHECK(
        std::find(known.begin(), known.end(), key) != known.end(), Code::invalid_config,
        fmt::format("model.{}: unknown key for model_type mlp{}", key, did_you_mean(key, known)));
}

void check_choice(const char* key, const std::string& value,
                  const std::vector<std::string>& known) {
  TESSERA_CHECK(std::find(known.begin(), known.end(), value) != known.end(), Code::invalid_config,
                fmt::format("model.{} '{}' is unknown{}; there are {}", key, value,
                            did_you_mean(value, known), fmt::join(known, ", ")));
}

void check_positive(const char* key, double value) {
  TESSERA_CHECK(value > 0 && std::isfinite(value), Code::invalid_config,
                fmt::format("model.{} is {}; it must be positive", key, value));
}

}  // namespace

MlpConfig MlpConfig::from_json(const std::string& text, bool strict) {
  const Json json = Json::parse(text, nullptr, false);
  TESSERA_CHECK(json.is_object(), Code::invalid_config,
                "the network's configuration is not a JSON object");
  if (strict) refuse_unknown_keys(json);
  MlpConfig config;
  visit_keys(config, [&](const char* key, auto& member) {
    if (!json.contains(key)) return;
    try {
      json[key].get_to(member);
    } catch (const Json::exception&) {
      fail(Code::invalid_config,
           fmt::format("model.{}: {} is not what is wanted there", key, json[key].dump()));
    }
  });
  config.validate();
  return config;
}

void MlpConfig::validate() const {
  constexpr std::int64_t kMost = std::int64_t{1} << 24;
  bool possible = layer_sizes.size() >= 2;
  for (const std::int64_t size : layer_sizes) possible &= size > 0 && size <= kMost;
  TESSERA_CHECK(possible, Code::invalid_config,
                fmt::format("model.layer_sizes is [{}]; it must be the numbers of inputs, of each "
                            "hidden layer and of outputs, for example [6, 64, 64, 1]",
                            fmt::join(layer_sizes, ", ")));
  parse_activation("activation", activation);
  check_choice("normalization", normalization, {"none", "layer_norm"});
  check_choice("loss", loss, {"mse", "l1", "huber", "cross_entropy"});
  check_positive("layer_norm_eps", layer_norm_eps);
  check_positive("huber_delta", huber_delta);
  TESSERA_CHECK(!normalize_outputs || loss != "cross_entropy", Code::invalid_config,
                "model.normalize_outputs is true, but classes (model.loss cross_entropy) have no "
                "mean: remove it");
}

std::string MlpConfig::to_json() const {
  nlohmann::ordered_json json;
  json["model_type"] = "mlp";
  visit_keys(*this, [&](const char* key, const auto& member) { json[key] = member; });
  return json.dump(2);
}

}  // namespace tessera::nn
