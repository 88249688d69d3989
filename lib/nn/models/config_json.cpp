// SPDX-License-Identifier: Apache-2.0
#include "nn/models/config_json.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/nearest_name.hpp"

namespace tessera::nn::config_json {
namespace {

/// Settings of generation and task heads, bookkeeping.
const std::vector<std::string> kOfEveryModel = {"_attn_implementation",
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
                                                "repetition_penalty",
                                                "return_dict",
                                                "return_dict_in_generate",
                                                "sep_token_id",
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

}  // namespace

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

Json parse(const std::string& text) {
  Json json = Json::parse(text, nullptr, false);
  TESSERA_CHECK(json.is_object(), Code::invalid_config,
                "the model's configuration is not a JSON object");
  return json;
}

void check_model_type(const Json& value, const std::string& type) {
  TESSERA_CHECK(value == type, Code::invalid_config,
                fmt::format("model.model_type is {}, not \"{}\"", value.dump(), type));
}

void check_known(const std::string& key, const std::string& type, std::vector<std::string> known) {
  known.insert(known.end(), kOfEveryModel.begin(), kOfEveryModel.end());
  known.emplace_back("model_type");
  TESSERA_CHECK(std::ranges::find(known, key) != known.end(), Code::invalid_config,
                fmt::format("model.{}: unknown key for model_type {}{}", key, type,
                            did_you_mean(key, known)));
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

void check_positive(const char* key, double value) {
  TESSERA_CHECK(value > 0 && std::isfinite(value), Code::invalid_config,
                fmt::format("model.{} is {}; it must be positive", key, value));
}

void check_not_negative(const char* key, double value) {
  TESSERA_CHECK(value >= 0 && std::isfinite(value), Code::invalid_config,
                fmt::format("model.{} is {}; it must not be negative", key, value));
}

}  // namespace tessera::nn::config_json
