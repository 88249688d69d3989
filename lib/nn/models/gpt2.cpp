// SPDX-License-Identifier: Apache-2.0
// GPT-2's parameters, and what its embedding and blocks compute.
#include "tessera/nn/models/gpt2.hpp"

#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "tessera/autograd/dropout.hpp"
#include "tessera/autograd/embedding.hpp"
#include "tessera/autograd/layer_norm.hpp"
#include "tessera/autograd/linear.hpp"

#include "nn/models/activation_name.hpp"
#include "nn/models/decoder_pass.hpp"
#include "nn/models/decoder_shares.hpp"

namespace tessera::nn {
namespace {

using autograd::Tape;
using autograd::Value;
using autograd::WeightLayout;
using Kind = Initialization::Kind;

// Dropout sites: 0 is the embedding's, then three in each block.
constexpr std::int64_t kEmbeddingSite = 0;
constexpr std::int64_t kSitesPerBlock = 3;
enum BlockSite : std::int64_t { attention_site = 1, projection_site = 2, mlp_site = 3 };

Initialization normal(double deviation) {
  return {Kind::normal, static_cast<float>(deviation)};
}

LayerNormParameters layer_norm_parameters(std::int64_t width) {
  return {Parameter(Shape{width}, {Kind::ones}), Parameter(Shape{width}, {Kind::zeros})};
}

DecoderSizes sizes_of(const Gpt2Config& config) {
  config.validate();
  return {.layers = config.n_layer,
          .width = config.n_embd,
          .heads = config.n_head,
          .kv_heads = config.n_head,
          .head_dim = config.head_dim(),
          .inner = config.inner(),
          .vocabulary = config.vocab_size,
          .positions = config.n_positions,
          .tied = config.tie_word_embeddings,
          .residual_dropout = config.resid_pdrop > 0,
          .heads_key = "n_head",
          .kv_heads_key = "n_head",
          .inner_key = "n_inner"};
}

/// The columns of q, k and v that belong to the heads.
std::vector<Interval> qkv_columns(const DecoderSizes& sizes, const Interval& heads) {
  const Interval own = elements_of_heads(sizes, heads);
  std::vector<Interval> columns;
  for (std::int64_t part = 0; part < 3; ++part)
    columns.push_back({part * sizes.width + own.begin, part * sizes.width + own.end});
  return columns;
}

}  // namespace

Gpt2::Gpt2(const Gpt2Config& config, const ModelOptions& options)
    : Decoder(sizes_of(config), options), config_(config) {
  const std::int64_t width = config_.n_embd;
  table_ = vocabulary_table(config_.initializer_range);
  wpe_ = Parameter(Shape{config_.n_positions, width}, normal(config_.initializer_range));
  for (std::int64_t layer = 0; layer < config_.n_layer; ++layer) h_.push_back(make_block());
  ln_f_ = layer_norm_parameters(width);
  if (!config_.tie_word_embeddings) head_ = vocabulary_table(config_.initializer_range);
  Layers layers{
      .embedding = {{"transformer.wte.weight", &table_}, {"transformer.wpe.weight", &wpe_}},
      .blocks = {},
      .last = {{"transformer.ln_f.weight", &ln_f_.weight}, {"transformer.ln_f.bias", &ln_f_.bias}},
      .head = "lm_head.weight",
      .block = "h"};
  for (std::size_t layer = 0; layer < h_.size(); ++layer)
    layers.blocks.push_back(parameters_of(h_[layer], fmt::format("transformer.h.{}.", layer)));
  build_units(std::move(layers));
}

std::vector<NamedParameter> Gpt2::parameters_of(Block& block, const std::string& path) {
  std::vector<NamedParameter> named;
  const auto pair = [&](const char* name, auto& parameters) {
    named.push_back({fmt::format("{}{}.weight", path, name), &parameters.weight});
    named.push_back({fmt::format("{}{}.bias", path, name), &parameters.bias});
  };
  pair("ln_1", block.ln_1);
  pair("attn.c_attn", block.attn.c_attn);
  pair("attn.c_proj", block.attn.c_proj);
  pair("ln_2", block.ln_2);
  pair("mlp.c_fc", block.mlp.c_fc);
  pair("mlp.c_proj", block.mlp.c_proj);
  return named;
}

Conv1DParameters Gpt2::column_parallel(std::int64_t inputs, std::int64_t outputs,
                                       std::vector<Interval> columns, double deviation) const {
  return {Parameter(split(options_.tensor, {inputs, outputs}, 1, columns), normal(deviation)),
          Parameter(split(options_.tensor, {outputs}, 0, columns), {Kind::zeros})};
}

Conv1DParameters Gpt2::row_parallel(std::int64_t inputs, std::int64_t outputs, const Interval& rows,
                                    double deviation) const {
  return {Parameter(split(options_.tensor, {inputs, outputs}, 0, {rows}), normal(deviation)),
          Parameter(Shape{outputs}, {Kind::zeros})};
}

Gpt2::Block Gpt2::make_block() const {
  const std::int64_t width = config_.n_embd;
  const double deviation = config_.initializer_range;
  // Every block adds two branches to the residual stream: their projections start smaller.
  const double residual = deviation / std::sqrt(2.0 * static_cast<double>(config_.n_layer));
  Block block;
  block.ln_1 = layer_norm_parameters(width);
  block.attn.c_attn =
      column_parallel(width, 3 * width, qkv_columns(sizes(), shares().heads), deviation);
  block.attn.c_proj =
      row_parallel(width, width, elements_of_heads(sizes(), shares().heads), residual);
  block.ln_2 = layer_norm_parameters(width);
  block.mlp.c_fc = column_parallel(width, config_.inner(), {shares().inner}, deviation);
  block.mlp.c_proj = row_parallel(config_.inner(), width, shares().inner, residual);
  return block;
}

float Gpt2::attention_scale(std::int64_t layer) const {
  double scale = 1;
  if (config_.scale_attn_weights) scale /= std::sqrt(static_cast<double>(config_.head_dim()));
  if (config_.scale_attn_by_inverse_layer_idx) scale /= static_cast<double>(layer + 1);
  return static_cast<float>(scale);
}

Value Gpt2::embed(Tape& tape, const Pass& pass, const Tensor& ids) {
  return autograd::dropout(
      tape, autograd::embedding(tape, table_, ids, &wpe_, pass.places, vocabulary_part()),
      dropout_site(pass, kEmbeddingSite, config_.embd_pdrop));
}

Value Gpt2::block_body(Tape& tape, const Pass& pass, std::int64_t layer, const Value& x) {
  Block& p = h_[static_cast<std::size_t>(layer)];
  const auto epsilon = static_cast<float>(config_.layer_norm_epsilon);
  const bool keep = keeps(layer);
  const auto residual_site = [&](BlockSite site) {
    return dropout_site(pass, kSitesPerBlock * layer + site, config_.resid_pdrop);
  };
  const auto attention_branch = [&] {
    const Value normed =
        autograd::layer_norm(tape, x, p.ln_1.weight, p.ln_1.bias, epsilon, keep, group_of_norms());
    const Value qkv = autograd::linear(tape, column_input(tape, pass, normed), p.attn.c_attn.weight,
                                       &p.attn.c_attn.bias);
    const Attention options{
        attention_scale(layer),
        dropout_site(pass, kSitesPerBlock * layer + attention_site, config_.attn_pdrop)};
    return row_output(tape, attend(tape, pass, layer, qkv, options), p.attn.c_proj.weight,
                      &p.attn.c_proj.bias, WeightLayout::in_out);
  };
  const autograd::NormedSum middle =
      autograd::dropout_add_layer_norm(tape, x, attention_branch(), residual_site(projection_site),
                                       p.ln_2.weight, p.ln_2.bias, epsilon, keep, group_of_norms());
  const auto mlp_branch = [&] {
    const Value active = autograd::linear_activation(
        tape, column_input(tape, pass, middle.normed), p.mlp.c_fc.weight, &p.mlp.c_fc.bias,
        parse_activation("activation_function", config_.activation_function), keep);
    return row_output(tape, active, p.mlp.c_proj.weight, &p.mlp.c_proj.bias, WeightLayout::in_out);
  };
  return autograd::dropout_add(tape, middle.sum, mlp_branch(), residual_site(mlp_site));
}

Value Gpt2::final_norm(Tape& tape, const Value& x) {
  return autograd::layer_norm(tape, x, ln_f_.weight, ln_f_.bias,
                              static_cast<float>(config_.layer_norm_epsilon), true,
                              group_of_norms());
}

std::vector<std::string> Gpt2::names_in_files(const std::string& name) const {
  constexpr std::string_view kPrefix = "transformer.";
  if (name.starts_with(kPrefix)) return {name, name.substr(kPrefix.size())};
  return {name};
}

bool Gpt2::ignores(const std::string& name_in_file) const {
  return name_in_file.ends_with(".attn.bias") || name_in_file.ends_with(".attn.masked_bias") ||
         (config_.tie_word_embeddings && name_in_file == "lm_head.weight");
}

}  // namespace tessera::nn
