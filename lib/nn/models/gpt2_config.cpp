// SPDX-License-Identifier: Apache-2.0
// Reads, checks and writes GPT-2's config.json.
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/base/nearest_name.hpp"
#include "tessera/nn/models/gpt2.hpp"

#include "nn/models/activation_name.hpp"

namespace tessera::nn {
namespace {

using Json = nlohmann::json;

/// Keys of Hugging Face's GPT2Config that decide nothing here: settings of generation and task
/// heads, bookkeeping. (reorder_and_upcast_attn: attention always sums in fp32.)
const std::vector<std::string> kKeysWithoutEffect = {"_attn_implementation",
                                                     "_name_or_path",
                                                     "architectures",
                                                     "attn_implementation",
                                                     "bad_words_ids",
                                                     "begin_suppress_tokens",
                                                     "bos_token_id",
                                                     "chunk_size_feed_forward",
                                                     "cross_attention_hidden_size",
                                                     "decoder_start_token_id",
                                                     "diversity_penalty",
                                                     "do_sample",
                                                     "dtype",
                                                     "early_stopping",
                                                     "encoder_no_repeat_ngram_size",
                                                     "eos_token_id",
                                                     "exponential_decay_length_penalty",
                                                     "finetuning_task",
                                                     "forced_bos_token_id",
                                                     "forced_eos_token_id",
                                                     "id2label",
                                                     "is_decoder",
                                                     "is_encoder_decoder",
                                                     "label2id",
                                                     "length_penalty",
                                                     "max_length",
                                                     "min_length",
                                                     "n_ctx",
                                                     "no_repeat_ngram_size",
                                                     "num_beam_groups",
                                                     "num_beams",
                                                     "num_labels",
                                                     "num_return_sequences",
                                                     "output_attentions",
                                                     "output_hidden_states",
                                                     "output_scores",
                                                     "pad_token_id",
                                                     "prefix",
                                                     "problem_type",
                                                     "pruned_heads",
                                                     "remove_invalid_values",
                                                     "reorder_and_upcast_attn",
                                                     "repetition_penalty",
                                                     "return_dict",
                                                     "return_dict_in_generate",
                                                     "sep_token_id",
                                                     "summary_activation",
                                                     "summary_first_dropout",
                                                     "summary_proj_to_labels",
                                                     "summary_type",
                                                     "summary_use_proj",
                                                     "suppress_tokens",
                                                     "task_specific_params",
                                                     "temperature",
                                                     "tf_legacy_loss",
                                                     "tie_encoder_decoder",
                                                     "tokenizer_class",
                                                     "top_k",
                                                     "top_p",
                                                     "torch_dtype",
                                                     "torchscript",
                                                     "transformers_version",
                                                     "typical_p",
                                                     "use_bfloat16",
                                                     "use_cache"};

[[noreturn]] void wrong_type(const std::string& key, const Json& value, const char* wanted) {
  fail(Code::invalid_config,
       fmt::format("model.{}: {} is wanted, not {}", key, wanted, value.dump()));
}

void read(const std::string& key, const Json& value, std::int64_t& target) {
  constexpr double kExact = 9007199254740992.0;  // whole numbers up to here are exact
  if (value.is_number_integer()) {
    target = value.get<std::int64_t>();
  } else if (value.is_number_float() && std::trunc(value.get<double>()) == value.get<double>() &&
             std::fabs(value.get<double>()) <= kExact) {
    target = static_cast<std::int64_t>(value.get<double>());
  } else {
    wrong_type(key, value, "a whole number");
  }
}

void read(const std::string& key, const Json& value, double& target) {
  if (!value.is_number()) wrong_type(key, value, "a number");
  target = value.get<double>();
}

void read(const std::string& key, const Json& value, bool& target) {
  if (!value.is_boolean()) wrong_type(key, value, "true or false");
  target = value.get<bool>();
}

void read(const std::string& key, const Json& value, std::string& target) {
  if (!value.is_string()) wrong_type(key, value, "a text");
  target = value.get<std::string>();
}

void read_inner(const std::string& key, const Json& value, std::int64_t& target) {
  target = 0;
  if (value.is_null()) return;
  read(key, value, target);
  TESSERA_CHECK(
      target > 0, Code::invalid_config,
      fmt::format("model.n_inner is {}; it must be positive, or null for 4 n_embd", target));
}

void check_model_type(const Json& value) {
  TESSERA_CHECK(value == "gpt2", Code::invalid_config,
                fmt::format("model.model_type is {}, not \"gpt2\"", value.dump()));
}

void check_cross_attention(const Json& value) {
  TESSERA_CHECK(value == false, Code::not_supported,
                "model.add_cross_attention: cross-attention is not available yet");
}

using Reader = std::function<void(const std::string&, const Json&, Gpt2Config&)>;

template <typename T>
Reader into(T Gpt2Config::*member) {
  return [member](const std::string& key, const Json& value, Gpt2Config& config) {
    read(key, value, config.*member);
  };
}

/// Every key that decides something, with the other names that Hugging Face gives to four of them.
const std::map<std::string, Reader>& readers() {
  static const std::map<std::string, Reader> table = {
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
      {"n_inner", [](const std::string& key, const Json& value,
                     Gpt2Config& config) { read_inner(key, value, config.n_inner); }},
      {"model_type",
       [](const std::string&, const Json& value, Gpt2Config&) { check_model_type(value); }},
      {"add_cross_attention",
       [](const std::string&, const Json& value, Gpt2Config&) { check_cross_attention(value); }}};
  return table;
}

[[noreturn]] void unknown_key(const std::string& key) {
  std::vector<std::string> known = kKeysWithoutEffect;
  for (const auto& [name, reader] : readers()) known.push_back(name);
  fail(Code::invalid_config,
       fmt::format("model.{}: unknown key for model_type gpt2{}", key, did_you_mean(key, known)));
}

void check_size(const char* key, std::int64_t value, std::int64_t most) {
  TESSERA_CHECK(value > 0 && value <= most, Code::invalid_config,
                fmt::format("model.{} is {}; it must be between 1 and {}", key, value, most));
}

void check_probability(const char* key, double value) {
  TESSERA_CHECK(
      value >= 0 && value < 1, Code::invalid_config,
      fmt::format("model.{} is {}; a dropout probability is at least 0 and below 1", key, value));
}

}  // namespace

Gpt2Config Gpt2Config::from_json(const std::string& text, bool strict) {
  const Json json = Json::parse(text, nullptr, false);
  TESSERA_CHECK(json.is_object(), Code::invalid_config,
                "the model's configuration is not a JSON object");
  Gpt2Config config;
  for (const auto& [key, value] : json.items()) {
    const auto reader = readers().find(key);
    if (reader != readers().end()) {
      reader->second(key, value, config);
    } else if (strict && std::ranges::find(kKeysWithoutEffect, key) == kKeysWithoutEffect.end()) {
      unknown_key(key);
    }
  }
  config.validate();
  return config;
}

void Gpt2Config::validate() const {
  constexpr std::int64_t kMost = std::int64_t{1} << 24;  // ids and positions are 32-bit
  check_size("n_layer", n_layer, 1 << 16);
  check_size("n_embd", n_embd, kMost);
  check_size("n_head", n_head, kMost);
  check_size("n_positions", n_positions, kMost);
  check_size("vocab_size", vocab_size, kMost);
  check_size("n_inner", inner(), 4 * kMost);
  TESSERA_CHECK(
      n_embd % n_head == 0, Code::invalid_config,
      fmt::format("model.n_embd {} is not a multiple of model.n_head {}", n_embd, n_head));
  check_probability("embd_pdrop", embd_pdrop);
  check_probability("attn_pdrop", attn_pdrop);
  check_probability("resid_pdrop", resid_pdrop);
  TESSERA_CHECK(
      layer_norm_epsilon > 0 && std::isfinite(layer_norm_epsilon), Code::invalid_config,
      fmt::format("model.layer_norm_epsilon is {}; it must be positive", layer_norm_epsilon));
  TESSERA_CHECK(
      initializer_range >= 0 && std::isfinite(initializer_range), Code::invalid_config,
      fmt::format("model.initializer_range is {}; it must not be negative", initializer_range));
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
