// SPDX-License-Identifier: Apache-2.0
// Reads, checks and writes Llama's config.json.
#include <cmath>
#include <numbers>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/nn/models/llama.hpp"

#include "nn/models/activation_name.hpp"
#include "nn/models/config_json.hpp"

namespace tessera::nn {
namespace {

using config_json::into;
using config_json::Json;
using Kind = RopeScaling::Kind;

/// Keys of Hugging Face's LlamaConfig that decide nothing here: pretraining_tp, a way of summing.
const std::vector<std::string> kWithoutEffect = {"pretraining_tp"};

Kind parse_kind(const std::string& key, const std::string& name) {
  if (name == "default") return Kind::none;
  if (name == "linear") return Kind::linear;
  if (name == "llama3") return Kind::llama3;
  fail(Code::not_supported,
       fmt::format("model.{} is {}, which is not available: default, linear and llama3 are", key,
                   name));
}

/// rope_scaling of transformers 4, or rope_parameters of 5, which has rope_theta too. Both know the
/// type by two names.
void read_rope(const std::string& key, const Json& value, LlamaConfig& config) {
  TESSERA_CHECK(value.is_object(), Code::invalid_config,
                fmt::format("model.{}: a section is wanted, not {}", key, value.dump()));
  RopeScaling& scaling = config.rope_scaling;
  for (const auto& [name, entry] : value.items()) {
    const std::string path = fmt::format("{}.{}", key, name);
    std::string word;
    if (name == "rope_type" || name == "type") {
      config_json::read(path, entry, word);
      scaling.kind = parse_kind(path, word);
    } else if (name == "factor") {
      config_json::read(path, entry, scaling.factor);
    } else if (name == "low_freq_factor") {
      config_json::read(path, entry, scaling.low_freq_factor);
    } else if (name == "high_freq_factor") {
      config_json::read(path, entry, scaling.high_freq_factor);
    } else if (name == "original_max_position_embeddings") {
      config_json::read(path, entry, scaling.original_max_position_embeddings);
    } else if (name == "rope_theta") {
      config_json::read(path, entry, config.rope_theta);
    } else {
      fail(Code::not_supported,
           fmt::format("model.{} is not available: rope_type, rope_theta, factor, low_freq_factor, "
                       "high_freq_factor and original_max_position_embeddings are",
                       path));
    }
  }
  TESSERA_CHECK(
      scaling.kind == Kind::none || value.contains("factor"), Code::invalid_config,
      fmt::format("model.{} has no factor: say how many times longer sequences become", key));
}

const config_json::Readers<LlamaConfig>& readers() {
  static const config_json::Readers<LlamaConfig> table = {
      {"num_hidden_layers", into(&LlamaConfig::num_hidden_layers)},
      {"hidden_size", into(&LlamaConfig::hidden_size)},
      {"intermediate_size", into(&LlamaConfig::intermediate_size)},
      {"num_attention_heads", into(&LlamaConfig::num_attention_heads)},
      {"num_key_value_heads", into(&LlamaConfig::num_key_value_heads)},
      {"head_dim", into(&LlamaConfig::head_size)},
      {"max_position_embeddings", into(&LlamaConfig::max_position_embeddings)},
      {"vocab_size", into(&LlamaConfig::vocab_size)},
      {"hidden_act", into(&LlamaConfig::hidden_act)},
      {"rms_norm_eps", into(&LlamaConfig::rms_norm_eps)},
      {"initializer_range", into(&LlamaConfig::initializer_range)},
      {"attention_dropout", into(&LlamaConfig::attention_dropout)},
      {"rope_theta", into(&LlamaConfig::rope_theta)},
      {"rope_scaling", read_rope},
      {"rope_parameters", read_rope},
      {"tie_word_embeddings", into(&LlamaConfig::tie_word_embeddings)},
      {"attention_bias", into(&LlamaConfig::attention_bias)},
      {"mlp_bias", into(&LlamaConfig::mlp_bias)}};
  return table;
}

void check_scaling(const RopeScaling& scaling) {
  config_json::check_positive("rope_scaling.factor", scaling.factor);
  if (scaling.kind != Kind::llama3) return;
  config_json::check_positive("rope_scaling.low_freq_factor", scaling.low_freq_factor);
  TESSERA_CHECK(scaling.high_freq_factor > scaling.low_freq_factor, Code::invalid_config,
                fmt::format("model.rope_scaling.high_freq_factor is {}; it must be above "
                            "low_freq_factor {}",
                            scaling.high_freq_factor, scaling.low_freq_factor));
  config_json::check_size("rope_scaling.original_max_position_embeddings",
                          scaling.original_max_position_embeddings, config_json::kMostIds);
}

/// Short wavelengths stay, long ones are stretched, and those between go over from one to the
/// other.
double llama3_frequency(double frequency, const RopeScaling& scaling) {
  const double turns = static_cast<double>(scaling.original_max_position_embeddings) * frequency /
                       (2 * std::numbers::pi);
  if (turns > scaling.high_freq_factor) return frequency;
  if (turns < scaling.low_freq_factor) return frequency / scaling.factor;
  const double kept =
      (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - kept) * frequency / scaling.factor + kept * frequency;
}

}  // namespace

std::vector<float> rotary_frequencies(const LlamaConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  std::vector<float> frequencies;
  for (std::int64_t i = 0; i < config.head_dim() / 2; ++i) {
    const double exponent = 2 * static_cast<double>(i) / static_cast<double>(config.head_dim());
    double frequency = std::pow(config.rope_theta, -exponent);
    if (scaling.kind == Kind::linear) frequency /= scaling.factor;
    if (scaling.kind == Kind::llama3) frequency = llama3_frequency(frequency, scaling);
    frequencies.push_back(static_cast<float>(frequency));
  }
  return frequencies;
}

LlamaConfig LlamaConfig::from_json(const std::string& text, bool strict) {
  LlamaConfig config;
  config_json::read_keys(text, "llama", readers(), kWithoutEffect, strict, config);
  config.validate();
  return config;
}

void LlamaConfig::validate() const {
  using config_json::check_size;
  using config_json::kMostIds;
  check_size("num_hidden_layers", num_hidden_layers, 1 << 16);
  check_size("hidden_size", hidden_size, kMostIds);
  check_size("intermediate_size", intermediate_size, 4 * kMostIds);
  check_size("num_attention_heads", num_attention_heads, kMostIds);
  check_size("num_key_value_heads", kv_heads(), kMostIds);
  check_size("max_position_embeddings", max_position_embeddings, kMostIds);
  check_size("vocab_size", vocab_size, kMostIds);
  TESSERA_CHECK(num_attention_heads % kv_heads() == 0, Code::invalid_config,
                fmt::format("model.num_attention_heads {} is not a multiple of "
                            "model.num_key_value_heads {}",
                            num_attention_heads, kv_heads()));
  TESSERA_CHECK(head_size > 0 || hidden_size % num_attention_heads == 0, Code::invalid_config,
                fmt::format("model.hidden_size {} is not a multiple of model.num_attention_heads "
                            "{}, and there is no model.head_dim",
                            hidden_size, num_attention_heads));
  TESSERA_CHECK(head_dim() % 2 == 0 && head_dim() > 0 && head_dim() <= 256, Code::invalid_config,
                fmt::format("model.head_dim is {}; it must be even and at most 256", head_dim()));
  config_json::check_probability("attention_dropout", attention_dropout);
  config_json::check_positive("rms_norm_eps", rms_norm_eps);
  config_json::check_positive("rope_theta", rope_theta);
  config_json::check_not_negative("initializer_range", initializer_range);
  check_scaling(rope_scaling);
  parse_activation("hidden_act", hidden_act);
}

std::string LlamaConfig::to_json() const {
  nlohmann::ordered_json json;
  json["architectures"] = {"LlamaForCausalLM"};
  json["model_type"] = "llama";
  json["num_hidden_layers"] = num_hidden_layers;
  json["hidden_size"] = hidden_size;
  json["intermediate_size"] = intermediate_size;
  json["num_attention_heads"] = num_attention_heads;
  json["num_key_value_heads"] = kv_heads();
  json["head_dim"] = head_dim();
  json["max_position_embeddings"] = max_position_embeddings;
  json["vocab_size"] = vocab_size;
  json["hidden_act"] = hidden_act;
  json["rms_norm_eps"] = rms_norm_eps;
  json["initializer_range"] = initializer_range;
  json["attention_dropout"] = attention_dropout;
  json["rope_theta"] = rope_theta;
  json["rope_scaling"] = nullptr;
  if (rope_scaling.kind == Kind::linear)
    json["rope_scaling"] = {{"rope_type", "linear"}, {"factor", rope_scaling.factor}};
  if (rope_scaling.kind == Kind::llama3)
    json["rope_scaling"] = {
        {"rope_type", "llama3"},
        {"factor", rope_scaling.factor},
        {"low_freq_factor", rope_scaling.low_freq_factor},
        {"high_freq_factor", rope_scaling.high_freq_factor},
        {"original_max_position_embeddings", rope_scaling.original_max_position_embeddings}};
  json["tie_word_embeddings"] = tie_word_embeddings;
  json["attention_bias"] = attention_bias;
  json["mlp_bias"] = mlp_bias;
  return json.dump(2);
}

}  // namespace tessera::nn
