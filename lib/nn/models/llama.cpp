// SPDX-License-Identifier: Apache-2.0
// Llama's parameters, and what its embedding and blocks compute.
#include "tessera/nn/models/llama.hpp"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "tessera/autograd/dropout.hpp"
#include "tessera/autograd/embedding.hpp"
#include "tessera/autograd/gated_activation.hpp"
#include "tessera/autograd/joined_linear.hpp"
#include "tessera/autograd/linear.hpp"
#include "tessera/autograd/rms_norm.hpp"
#include "tessera/autograd/rotary.hpp"

#include "nn/models/activation_name.hpp"
#include "nn/models/decoder_pass.hpp"
#include "nn/models/decoder_shares.hpp"

namespace tessera::nn {
namespace {

using autograd::Joined;
using autograd::Tape;
using autograd::Value;
using autograd::WeightLayout;
using Kind = Initialization::Kind;

DecoderSizes sizes_of(const LlamaConfig& config) {
  config.validate();
  return {.layers = config.num_hidden_layers,
          .width = config.hidden_size,
          .heads = config.num_attention_heads,
          .kv_heads = config.kv_heads(),
          .head_dim = config.head_dim(),
          .inner = config.intermediate_size,
          .vocabulary = config.vocab_size,
          .positions = config.max_position_embeddings,
          .tied = config.tie_word_embeddings,
          .gated = true,
          .rotary = true,
          .norm_statistics = 1,
          .heads_key = "num_attention_heads",
          .kv_heads_key = "num_key_value_heads",
          .inner_key = "intermediate_size"};
}

Parameter norm_weight(std::int64_t width) {
  return Parameter(Shape{width}, {Kind::ones});
}

}  // namespace

Llama::Llama(const LlamaConfig& config, const ModelOptions& options)
    : Decoder(sizes_of(config), options), config_(config) {
  table_ = vocabulary_table(config_.initializer_range);
  for (std::int64_t layer = 0; layer < config_.num_hidden_layers; ++layer)
    blocks_.push_back(make_block());
  norm_ = norm_weight(config_.hidden_size);
  if (!config_.tie_word_embeddings) head_ = vocabulary_table(config_.initializer_range);
  Layers layers{.embedding = {{"model.embed_tokens.weight", &table_}},
                .blocks = {},
                .last = {{"model.norm.weight", &norm_}},
                .head = "lm_head.weight",
                .block = "layers"};
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer)
    layers.blocks.push_back(parameters_of(blocks_[layer], fmt::format("model.layers.{}.", layer)));
  build_units(std::move(layers));
  const std::vector<float> frequencies = rotary_frequencies(config_);
  frequencies_ = Tensor(Shape{static_cast<std::int64_t>(frequencies.size())}, DType::fp32, Device{},
                        Purpose::workspace);
  std::ranges::copy(frequencies, frequencies_.as<float>());
}

std::vector<NamedParameter> Llama::parameters_of(Block& block, const std::string& path) {
  std::vector<NamedParameter> named;
  const auto norm = [&](const char* name, Parameter& weight) {
    named.push_back({fmt::format("{}{}.weight", path, name), &weight});
  };
  const auto projection = [&](const char* name, Projection& parameters) {
    named.push_back({fmt::format("{}{}.weight", path, name), &parameters.weight});
    if (parameters.biased)
      named.push_back({fmt::format("{}{}.bias", path, name), &parameters.bias});
  };
  norm("input_layernorm", block.input_layernorm);
  projection("self_attn.q_proj", block.q_proj);
  projection("self_attn.k_proj", block.k_proj);
  projection("self_attn.v_proj", block.v_proj);
  projection("self_attn.o_proj", block.o_proj);
  norm("post_attention_layernorm", block.post_attention_layernorm);
  projection("mlp.gate_proj", block.gate_proj);
  projection("mlp.up_proj", block.up_proj);
  projection("mlp.down_proj", block.down_proj);
  return named;
}

Llama::Projection Llama::column_parallel(std::int64_t outputs, const Interval& own,
                                         bool biased) const {
  const Initialization start{Kind::normal, static_cast<float>(config_.initializer_range)};
  return {Parameter(split(options_.tensor, {outputs, config_.hidden_size}, 0, {own}), start),
          Parameter(split(options_.tensor, {outputs}, 0, {own}), {Kind::zeros}), biased};
}

Llama::Projection Llama::row_parallel(std::int64_t inputs, const Interval& own, bool biased) const {
  const Initialization start{Kind::normal, static_cast<float>(config_.initializer_range)};
  return {Parameter(split(options_.tensor, {config_.hidden_size, inputs}, 1, {own}), start),
          Parameter(Shape{config_.hidden_size}, {Kind::zeros}), biased};
}

Llama::Projection Llama::key_or_value() const {
  Projection projection =
      column_parallel(config_.kv_heads() * config_.head_dim(),
                      elements_of_heads(sizes(), shares().kv_heads), config_.attention_bias);
  for (Parameter* parameter : {&projection.weight, &projection.bias}) {
    parameter->held_by_several = options_.tensor.size > config_.kv_heads();
    parameter->counted = options_.tensor.rank == shares().kv_holders.begin;
  }
  return projection;
}

Llama::Block Llama::make_block() const {
  const std::int64_t queries = config_.num_attention_heads * config_.head_dim();
  const std::int64_t inner = config_.intermediate_size;
  const Interval heads = elements_of_heads(sizes(), shares().heads);
  return {.input_layernorm = norm_weight(config_.hidden_size),
          .q_proj = column_parallel(queries, heads, config_.attention_bias),
          .k_proj = key_or_value(),
          .v_proj = key_or_value(),
          .o_proj = row_parallel(queries, heads, config_.attention_bias),
          .post_attention_layernorm = norm_weight(config_.hidden_size),
          .gate_proj = column_parallel(inner, shares().inner, config_.mlp_bias),
          .up_proj = column_parallel(inner, shares().inner, config_.mlp_bias),
          .down_proj = row_parallel(inner, shares().inner, config_.mlp_bias)};
}

const Tensor& Llama::frequencies(const Stream& stream) {
  if (frequencies_.device() != stream.device())
    frequencies_ = frequencies_.on_host(stream).on(stream);
  return frequencies_;
}

Value Llama::embed(Tape& tape, const Pass&, const Tensor& ids) {
  return autograd::embedding(tape, table_, ids, nullptr, {}, vocabulary_part());
}

Value Llama::attention(Tape& tape, const Pass& pass, std::int64_t layer, const Value& normed) {
  Block& p = blocks_[static_cast<std::size_t>(layer)];
  const auto part = [](Projection& projection) {
    return autograd::LinearPart{&projection.weight, projection.bias_or_null(),
                                projection.weight.held_by_several};
  };
  autograd::WeightHolders holders;
  if (p.k_proj.weight.held_by_several) holders = {options_.tensor.group, shares().kv_holders};
  Value qkv = autograd::joined_linear(tape, column_input(tape, pass, normed),
                                      {part(p.q_proj), part(p.k_proj), part(p.v_proj)},
                                      Joined::columns, holders);
  qkv = autograd::rotary(tape, std::move(qkv),
                         {.positions = pass.places,
                          .inverse_frequencies = frequencies(tape.stream()),
                          .heads = shares().heads.size() + shares().kv_heads.size(),
                          .head_dim = config_.head_dim()});
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(config_.head_dim())));
  const Value mixed =
      attend(tape, pass, layer, qkv, {scale, dropout_site(pass, layer, config_.attention_dropout)});
  return row_output(tape, mixed, p.o_proj.weight, p.o_proj.bias_or_null(), WeightLayout::out_in);
}

Value Llama::feed_forward(Tape& tape, const Pass& pass, std::int64_t layer, const Value& normed) {
  Block& p = blocks_[static_cast<std::size_t>(layer)];
  Value gate_up = autograd::joined_linear(tape, column_input(tape, pass, normed),
                                          {{&p.gate_proj.weight, p.gate_proj.bias_or_null()},
                                           {&p.up_proj.weight, p.up_proj.bias_or_null()}},
                                          Joined::planes);
  const Value active = autograd::gated_activation(
      tape, std::move(gate_up), parse_activation("hidden_act", config_.hidden_act), keeps(layer));
  return row_output(tape, active, p.down_proj.weight, p.down_proj.bias_or_null(),
                    WeightLayout::out_in);
}

Value Llama::block_body(Tape& tape, const Pass& pass, std::int64_t layer, const Value& x) {
  Block& p = blocks_[static_cast<std::size_t>(layer)];
  const auto normed = [&](const Value& input, Parameter& weight) {
    return autograd::rms_norm(tape, input, weight, static_cast<float>(config_.rms_norm_eps),
                              keeps(layer), group_of_norms());
  };
  const Value middle = autograd::dropout_add(
      tape, x, attention(tape, pass, layer, normed(x, p.input_layernorm)), {});
  return autograd::dropout_add(
      tape, middle, feed_forward(tape, pass, layer, normed(middle, p.post_attention_layernorm)),
      {});
}

Value Llama::final_norm(Tape& tape, const Value& x) {
  return autograd::rms_norm(tape, x, norm_, static_cast<float>(config_.rms_norm_eps), true,
                            group_of_norms());
}

std::vector<std::string> Llama::names_in_files(const std::string& name) const {
  constexpr std::string_view kPrefix = "model.";
  if (name.starts_with(kPrefix)) return {name, name.substr(kPrefix.size())};
  return {name};
}

bool Llama::ignores(const std::string& name_in_file) const {
  return name_in_file.ends_with(".rotary_emb.inv_freq") ||
         (config_.tie_word_embeddings && name_in_file == "lm_head.weight");
}

}  // namespace tessera::nn
