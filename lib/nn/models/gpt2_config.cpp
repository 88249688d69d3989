// SPDX-License-Identifier: Apache-2.0
// Reads, checks and writes GPT-2's config.json.
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/nn/models/gpt2.hpp"

#include "nn/models/activation_name.hpp"
#include "nn/models/config_json.hpp"

namespace tessera::nn {
namespace {

using config_json::into;
using config_json::Json;

/// Keys of Hugging Face's GPT2Config that decide nothing here. (reorder_and_upcast_attn: attention
/// always sums in fp32.)
const std::vector<std::string> kWithoutEffect = {"n_ctx",
                                                 "reorder_and_upcast_attn",
                                                 "summary_activation",
                                                 "summary_first_dropout",
                                                 "summary_proj_to_labels",
                                                 "summary_type",
                                                 "summary_use_proj"};

void read_inner(const std::string& key, const Json& value, Gpt2Config& config) {
  config_json::read(key, value, config.n_inner);
  TESSERA_CHECK(config.n_inner > 0, Code::invalid_config,
                fmt::format("model.n_inner is {}; it must be positive, or null for 4 n_embd",
                            config.n_inner));
}

void check_cross_attention(const std::string&, const Json& value, Gpt2Config&) {
  TESSERA_CHECK(value == false, Code::not_supported,
                "model.add_cross_attention: cross-attention is not available yet");
}

/// Every key that decides something, with the other names that Hugging Face gives to four of them.
const config_json::Readers<Gpt2Config>& readers() {
  static const config_json::Readers<Gpt2Config> table = {
      {"n_layer", into(&Gpt2Config::n_layer)},
      {"num_hidden_layers", into(&Gpt2Config::n_layer)},
      {"n_embd", into(&Gpt2Config::n_embd)},
      {"hidden_size", into(&Gpt2Config::n_embd)},
      {"n_head", into(&Gpt2Config::n_head)},
      {"num_attention_heads", into(&Gpt2Config::n_head)},
      {"n_positions", into(&Gpt2Config::n_positions)},
      {"max_position_embeddings", into(&Gpt2Config::n_positions)},
      {"vocab_size", into(&Gpt2Config::vocab_size)},
      {"activation_function", into(&Gpt2Config::activation_function)},
      {"layer_norm_epsilon", into(&Gpt2Config::layer_norm_epsilon)},
      {"embd_pdrop", into(&Gpt2Config::embd_pdrop)},
      {"attn_pdrop", into(&Gpt2Config::attn_pdrop)},
      {"resid_pdrop", into(&Gpt2Config::resid_pdrop)},
      {"initializer_range", into(&Gpt2Config::initializer_range)},
      {"tie_word_embeddings", into(&Gpt2Config::tie_word_embeddings)},
      {"scale_attn_weights", into(&Gpt2Config::scale_attn_weights)},
      {"scale_attn_by_inverse_layer_idx", into(&Gpt2Config::scale_attn_by_inverse_layer_idx)},
      {"n_inner", read_inner},
      {"add_cross_attention", check_cross_attention}};
  return table;
}

}  // namespace

Gpt2Config Gpt2Config::from_json(const std::string& text, bool strict) {
  Gpt2Config config;
  config_json::read_keys(text, "gpt2", readers(), kWithoutEffect, strict, config);
  config.validate();
  return config;
}

void Gpt2Config::validate() const {
  using config_json::kMostIds;
  config_json::check_size("n_layer", n_layer, 1 << 16);
  config_json::check_size("n_embd", n_embd, kMostIds);
  config_json::check_size("n_head", n_head, kMostIds);
  config_json::check_size("n_positions", n_positions, kMostIds);
  config_json::check_size("vocab_size", vocab_size, kMostIds);
  config_json::check_size("n_inner", inner(), 4 * kMostIds);
  TESSERA_CHECK(
      n_embd % n_head == 0, Code::invalid_config,
      fmt::format("model.n_embd {} is not a multiple of model.n_head {}", n_embd, n_head));
  config_json::check_probability("embd_pdrop", embd_pdrop);
  config_json::check_probability("attn_pdrop", attn_pdrop);
  config_json::check_probability("resid_pdrop", resid_pdrop);
  config_json::check_positive("layer_norm_epsilon", layer_norm_epsilon);
  config_json::check_not_negative("initializer_range", initializer_range);
  parse_activation("activation_function", activation_function);
}

std::string Gpt2Config::to_json() const {
  nlohmann::ordered_json json;
  json["architectures"] = {"GPT2LMHeadModel"};
  json["model_type"] = "gpt2";
  json["n_layer"] = n_layer;
  json["n_embd"] = n_embd;
  json["n_head"] = n_head;
  json["n_positions"] = n_positions;
  json["vocab_size"] = vocab_size;
  json["n_inner"] = nullptr;
  if (n_inner > 0) json["n_inner"] = n_inner;
  json["activation_function"] = activation_function;
  json["layer_norm_epsilon"] = layer_norm_epsilon;
  json["embd_pdrop"] = embd_pdrop;
  json["attn_pdrop"] = attn_pdrop;
  json["resid_pdrop"] = resid_pdrop;
  json["initializer_range"] = initializer_range;
  json["tie_word_embeddings"] = tie_word_embeddings;
  json["scale_attn_weights"] = scale_attn_weights;
  json["scale_attn_by_inverse_layer_idx"] = scale_attn_by_inverse_layer_idx;
  return json.dump(2);
}

}  // namespace tessera::nn
