// SPDX-License-Identifier: Apache-2.0
// Reading, checking and writing GPT-2's configuration.
#include <string>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/nn/models/gpt2.hpp"

namespace tessera::nn {
namespace {

std::string message_of(const std::string& json, Code code) {
  try {
    Gpt2Config::from_json(json, true);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  ADD_FAILURE() << "no error for " << json;
  return "";
}

void expect_error(const std::string& json, const std::string& part,
                  Code code = Code::invalid_config) {
  EXPECT_NE(message_of(json, code).find(part), std::string::npos) << message_of(json, code);
}

TEST(Gpt2Config, DefaultsAreHuggingFaces) {
  const Gpt2Config config = Gpt2Config::from_json(R"({"model_type": "gpt2"})", true);
  EXPECT_EQ(config.n_layer, 12);
  EXPECT_EQ(config.n_embd, 768);
  EXPECT_EQ(config.inner(), 3072);
  EXPECT_EQ(config.vocab_size, 50257);
  EXPECT_EQ(config.resid_pdrop, 0.1);
  EXPECT_TRUE(config.tie_word_embeddings);
}

TEST(Gpt2Config, ReadsAndWritesTheSame) {
  const Gpt2Config config = Gpt2Config::from_json(
      R"({"n_layer": 2, "n_embd": 1.2e1, "n_head": 3, "n_positions": 7, "vocab_size": 11,
          "n_inner": 20, "activation_function": "relu", "layer_norm_epsilon": 3e-6,
          "embd_pdrop": 0, "attn_pdrop": 0.3, "resid_pdrop": 0.7, "initializer_range": 0.1,
          "tie_word_embeddings": false, "scale_attn_weights": false,
          "scale_attn_by_inverse_layer_idx": true, "summary_type": "cls_index",
          "transformers_version": "5", "n_ctx": 7})",
      true);
  EXPECT_EQ(config.n_embd, 12);
  EXPECT_EQ(config.inner(), 20);
  EXPECT_EQ(config.attn_pdrop, 0.3);
  const std::string text = config.to_json();
  EXPECT_EQ(Gpt2Config::from_json(text, true).to_json(), text);
  EXPECT_NE(text.find("3e-06"), std::string::npos) << text;
}

TEST(Gpt2Config, KnowsHuggingFacesOtherNames) {
  const Gpt2Config config = Gpt2Config::from_json(
      R"({"hidden_size": 10, "num_hidden_layers": 1, "num_attention_heads": 2,
          "max_position_embeddings": 5})",
      true);
  EXPECT_EQ(config.n_embd, 10);
  EXPECT_EQ(config.n_positions, 5);
}

TEST(Gpt2Config, UnknownKeysAreErrorsWhenStrict) {
  expect_error(R"({"n_layers": 2})",
               "model.n_layers: unknown key for model_type gpt2; did you mean 'n_layer'?");
  expect_error(R"({"rope_theta": 1})", "unknown key");
  EXPECT_EQ(Gpt2Config::from_json(R"({"n_layers": 2})", false).n_layer, 12);
}

TEST(Gpt2Config, ImpossibleValuesAreErrors) {
  expect_error("[1]", "not a JSON object");
  expect_error("{\"n_layer\": 2", "not a JSON object");
  expect_error(R"({"n_layer": "2"})", "model.n_layer: a whole number is wanted, not \"2\"");
  expect_error(R"({"n_layer": 2.5})", "whole number");
  expect_error(R"({"n_layer": 0})", "model.n_layer is 0");
  expect_error(R"({"n_embd": -4})", "model.n_embd is -4");
  expect_error(R"({"vocab_size": 1e12})", "vocab_size");
  expect_error(R"({"n_embd": 10, "n_head": 3})", "10 is not a multiple of model.n_head 3");
  expect_error(R"({"n_inner": 0})", "n_inner");
  expect_error(R"({"resid_pdrop": 1.0})", "resid_pdrop is 1");
  expect_error(R"({"attn_pdrop": -0.1})", "attn_pdrop");
  expect_error(R"({"embd_pdrop": true})", "a number is wanted");
  expect_error(R"({"tie_word_embeddings": 1})", "true or false");
  expect_error(R"({"activation_function": "gelu_nwe"})", "did you mean 'gelu_new'?");
  expect_error(R"({"layer_norm_epsilon": 0})", "layer_norm_epsilon");
  expect_error(R"({"initializer_range": -1})", "initializer_range");
  expect_error(R"({"model_type": "llama"})", "model_type");
  expect_error(R"({"add_cross_attention": true})", "cross-attention", Code::not_supported);
}

}  // namespace
}  // namespace tessera::nn
