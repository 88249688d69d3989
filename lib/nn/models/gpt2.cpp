// SPDX-License-Identifier: Apache-2.0
// GPT-2's parameters and forward pass.
#include "tessera/nn/models/gpt2.hpp"

#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "tessera/autograd/attention.hpp"
#include "tessera/autograd/dropout.hpp"
#include "tessera/autograd/embedding.hpp"
#include "tessera/autograd/head_loss.hpp"
#include "tessera/autograd/layer_norm.hpp"
#include "tessera/autograd/linear.hpp"
#include "tessera/autograd/ring_attention.hpp"
#include "tessera/autograd/ulysses_attention.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/random.hpp"
#include "tessera/kernels/copy_blocks.hpp"
#include "tessera/kernels/embedding.hpp"
#include "tessera/kernels/gemm.hpp"

#include "nn/models/activation_name.hpp"
#include "nn/models/gpt2_pass.hpp"
#include "nn/models/gpt2_shares.hpp"

namespace tessera::nn {
namespace {

using autograd::Tape;
using autograd::Value;
using Kind = Initialization::Kind;

constexpr int kEmbedding = 0;

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

/// The only traversal: names and order of a block's parameters.
template <typename Visit>
void visit_block(Gpt2::Block& block, const std::string& path, Visit visit) {
  const auto pair = [&](const char* name, auto& parameters) {
    visit(fmt::format("{}{}.weight", path, name), parameters.weight);
    visit(fmt::format("{}{}.bias", path, name), parameters.bias);
  };
  pair("ln_1", block.ln_1);
  pair("attn.c_attn", block.attn.c_attn);
  pair("attn.c_proj", block.attn.c_proj);
  pair("ln_2", block.ln_2);
  pair("mlp.c_fc", block.mlp.c_fc);
  pair("mlp.c_proj", block.mlp.c_proj);
}

kernels::Activation gpt2_activation(const Gpt2Config& config) {
  return parse_activation("activation_function", config.activation_function);
}

Tensor position_ids(const Stream& stream, std::int64_t rows, std::int64_t positions,
                    std::int64_t first) {
  const Tensor ids(Shape{rows, positions}, DType::int32, stream.device());
  kernels::position_ids(stream, ids.as<std::int32_t>(), rows, positions, first);
  return ids;
}

}  // namespace

Gpt2::Gpt2(const Gpt2Config& config, const ModelOptions& options)
    : Model(options), config_(config) {
  config_.validate();
  const bool computes =
      options.dtype == DType::fp32 || options.dtype == DType::bf16 || options.dtype == DType::fp16;
  TESSERA_CHECK(computes, Code::not_supported,
                fmt::format("a model cannot compute in {}; use fp32, bf16 or fp16",
                            to_string(options.dtype)));
  const std::int64_t width = config_.n_embd;
  shares_ = gpt2_shares(config_, options_.tensor);
  options_.sequence.attention = gpt2_sequence_attention(config_, options_);
  wte_ = vocabulary_table();
  wpe_ = Parameter(Shape{config_.n_positions, width}, normal(config_.initializer_range));
  for (std::int64_t layer = 0; layer < config_.n_layer; ++layer) add_block();
  ln_f_ = layer_norm_parameters(width);
  if (!config_.tie_word_embeddings) lm_head_ = vocabulary_table();
  build_units();
  arrange_for_tensor_axis();
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

Parameter Gpt2::vocabulary_table() const {
  return {split(options_.tensor, {config_.vocab_size, config_.n_embd}, 0, {shares_.vocabulary}),
          normal(config_.initializer_range)};
}

void Gpt2::add_block() {
  const std::int64_t width = config_.n_embd;
  const double deviation = config_.initializer_range;
  // Every block adds two branches to the residual stream: their projections start smaller.
  const double residual = deviation / std::sqrt(2.0 * static_cast<double>(config_.n_layer));
  Block block;
  block.ln_1 = layer_norm_parameters(width);
  const Interval heads{shares_.heads.begin * config_.head_dim(),
                       shares_.heads.end * config_.head_dim()};
  block.attn.c_attn =
      column_parallel(width, 3 * width, qkv_columns(config_, shares_.heads), deviation);
  block.attn.c_proj = row_parallel(width, width, heads, residual);
  block.ln_2 = layer_norm_parameters(width);
  block.mlp.c_fc = column_parallel(width, config_.inner(), {shares_.inner}, deviation);
  block.mlp.c_proj = row_parallel(config_.inner(), width, shares_.inner, residual);
  h_.push_back(std::move(block));
}

void Gpt2::build_units() {
  const bool tied = config_.tie_word_embeddings;
  units_.push_back({"embedding",
                    {{"transformer.wte.weight", &wte_}, {"transformer.wpe.weight", &wpe_}},
                    kEmbedding,
                    tied ? final_layer() : kEmbedding});
  for (std::size_t layer = 0; layer < h_.size(); ++layer) {
    const int index = static_cast<int>(layer) + 1;
    Unit unit{fmt::format("h.{}", layer), {}, index, index};
    visit_block(h_[layer], fmt::format("transformer.h.{}.", layer),
                [&](std::string name, Parameter& parameter) {
                  unit.parameters.push_back({std::move(name), &parameter});
                });
    units_.push_back(std::move(unit));
  }
  Unit last{"final",
            {{"transformer.ln_f.weight", &ln_f_.weight}, {"transformer.ln_f.bias", &ln_f_.bias}},
            final_layer(),
            final_layer()};
  if (!tied) last.parameters.push_back({"lm_head.weight", &lm_head_});
  units_.push_back(std::move(last));
}

void Gpt2::check_ids(const Tensor& ids, std::int64_t past) const {
  TESSERA_CHECK(ids.dtype() == DType::int32 && ids.shape().rank() == 2 && ids.numel() > 0,
                Code::invalid_argument,
                fmt::format("token ids must be int32 [rows, positions], not {} {}",
                            to_string(ids.dtype()), ids.shape().to_string()));
  TESSERA_CHECK(past + ids.size(1) <= config_.n_positions, Code::invalid_argument,
                fmt::format("a sequence of {} tokens does not fit the model's {} positions",
                            past + ids.size(1), config_.n_positions));
}

void Gpt2::require_group() const {
  const auto require = [](const char* name, const auto& axis) {
    TESSERA_CHECK(axis.size == 1 || axis.group != nullptr, Code::invalid_argument,
                  fmt::format("this is rank {} of {} of a {} axis without its group: parameters to "
                              "look at, nothing to compute with",
                              axis.rank, axis.size, name));
  };
  require("tensor", options_.tensor);
  require("sequence", options_.sequence);
}

void Gpt2::require_whole(const char* what) const {
  TESSERA_CHECK(is_whole(), Code::not_supported,
                fmt::format("{} of a model that is split over {} ranks are not available yet: load "
                            "its checkpoint without a tensor or sequence axis",
                            what, options_.tensor.size * options_.sequence.size));
}

void Gpt2::check(const Tensor& ids, const Tensor* targets) const {
  check_ids(ids, 0);
  TESSERA_CHECK(
      targets == nullptr || (targets->dtype() == DType::int32 && targets->numel() == ids.numel()),
      Code::invalid_argument,
      fmt::format("the targets of ids {} are {} {}", ids.shape().to_string(),
                  to_string(targets->dtype()), targets->shape().to_string()));
}

autograd::DropoutSite Gpt2::dropout_site(const Pass& pass, std::int64_t site,
                                         double probability) const {
  if (!pass.dropout) return {};
  if (pass.memory != nullptr)
    return {.probability = static_cast<float>(probability),
            .seed = pass.seed,
            .stream = static_cast<std::uint64_t>(site),
            .variables = pass.memory->variables,
            .row_elements = pass.positions * config_.n_embd};
  return {.probability = static_cast<float>(probability),
          .seed = pass.seed,
          .stream = mix(pass.step, static_cast<std::uint64_t>(site)),
          .offset = pass.first_row * pass.positions * config_.n_embd,
          .runs = pass.runs};
}

float Gpt2::attention_scale(std::int64_t layer) const {
  double scale = 1;
  if (config_.scale_attn_weights) scale /= std::sqrt(static_cast<double>(config_.head_dim()));
  if (config_.scale_attn_by_inverse_layer_idx) scale /= static_cast<double>(layer + 1);
  return static_cast<float>(scale);
}

Value Gpt2::embed(Tape& tape, const Pass& pass, const Tensor& ids) {
  const std::int64_t past = pass.cache ? pass.cache->length : 0;
  const Tensor positions = own_tokens(
      tape.stream(), pass, position_ids(tape.stream(), ids.size(0), pass.positions, past));
  return autograd::dropout(
      tape, autograd::embedding(tape, wte_, ids, &wpe_, positions, vocabulary_part()),
      dropout_site(pass, kEmbeddingSite, config_.embd_pdrop));
}

Value Gpt2::attend(Tape& tape, const Pass& pass, std::int64_t layer, const Value& qkv) {
  if (pass.cache != nullptr) return attend_cached(tape, pass, layer, qkv.data());
  const autograd::SelfAttention options{
      .heads = shares_.heads.size(),
      .scale = attention_scale(layer),
      .dropout = dropout_site(pass, kSitesPerBlock * layer + attention_site, config_.attn_pdrop),
      .batch_offset = pass.memory != nullptr ? 0 : pass.first_row,
      .head_offset = shares_.heads.begin,
      .all_heads = config_.n_head};
  if (!pass.shards) return autograd::self_attention(tape, qkv, options);
  if (options_.sequence.attention == SequenceAttention::ring)
    return autograd::ring_attention(tape, qkv, options, pass.shards);
  return autograd::ulysses_attention(tape, qkv, options, pass.shards);
}

Value Gpt2::block_body(Tape& tape, const Pass& pass, std::int64_t layer, const Value& x) {
  Block& p = h_[static_cast<std::size_t>(layer)];
  const auto epsilon = static_cast<float>(config_.layer_norm_epsilon);
  const bool keep = options_.recompute_of(layer) != Recompute::selective;
  const auto residual_site = [&](BlockSite site) {
    return dropout_site(pass, kSitesPerBlock * layer + site, config_.resid_pdrop);
  };
  const auto attention_branch = [&] {
    const Value normed =
        autograd::layer_norm(tape, x, p.ln_1.weight, p.ln_1.bias, epsilon, keep, group_of_norms());
    const Value qkv = autograd::linear(tape, column_input(tape, pass, normed), p.attn.c_attn.weight,
                                       &p.attn.c_attn.bias);
    const Value mixed = attend(tape, pass, layer, qkv);
    return row_output(tape, mixed, p.attn.c_proj);
  };
  const autograd::NormedSum middle =
      autograd::dropout_add_layer_norm(tape, x, attention_branch(), residual_site(projection_site),
                                       p.ln_2.weight, p.ln_2.bias, epsilon, keep, group_of_norms());
  const auto mlp_branch = [&] {
    const Value active = autograd::linear_activation(tape, column_input(tape, pass, middle.normed),
                                                     p.mlp.c_fc.weight, &p.mlp.c_fc.bias,
                                                     gpt2_activation(config_), keep);
    return row_output(tape, active, p.mlp.c_proj);
  };
  return autograd::dropout_add(tape, middle.sum, mlp_branch(), residual_site(mlp_site));
}

Value Gpt2::block(Tape& tape, const Pass& pass, std::int64_t layer, const Value& x) {
  const int unit = unit_of(static_cast<int>(layer) + 1);
  tape.enter(unit);
  const auto body = [this, pass, layer](Tape& inner, const Value& input) {
    return block_body(inner, pass, layer, input);
  };
  Value y = options_.recompute_of(layer) == Recompute::full
                ? autograd::recompute(tape, x, body, kept_inputs())
                : body(tape, x);
  tape.leave(unit);
  return y;
}

Value Gpt2::final_norm(Tape& tape, const Value& x) {
  return autograd::layer_norm(tape, x, ln_f_.weight, ln_f_.bias,
                              static_cast<float>(config_.layer_norm_epsilon), true,
                              group_of_norms());
}

Value Gpt2::blocks(Tape& tape, const Pass& pass, const Tensor& ids) {
  require_all_layers();
  tape.enter(kEmbedding);
  Value x = embed(tape, pass, ids);
  if (!config_.tie_word_embeddings) tape.leave(kEmbedding);
  for (std::int64_t layer = 0; layer < config_.n_layer; ++layer) x = block(tape, pass, layer, x);
  return x;
}

template <typename Head>
auto Gpt2::with_head(Tape& tape, const Value& x, Head head) {
  const int unit = unit_of(final_layer());
  tape.enter(unit);
  const Value hidden = final_norm(tape, x);
  if (config_.tie_word_embeddings) tape.leave(unit);
  if (config_.tie_word_embeddings && in_stages()) tape.enter(head_unit());
  auto result = head(hidden);
  tape.leave(head_unit());
  return result;
}

autograd::Loss Gpt2::head_loss(Tape& tape, const Pass& pass, const Batch& batch, const Value& x) {
  const Tensor targets = own_tokens(tape.stream(), pass, batch.targets);
  return with_head(tape, x, [&](const Value& hidden) {
    return autograd::head_loss(tape, hidden, head_weight(), targets, batch.gradient_scale,
                               batch.memory, vocabulary_part());
  });
}

Gpt2::Pass Gpt2::training_pass(const Batch& batch) const {
  Pass pass{.dropout = batch.training,
            .seed = batch.seed,
            .step = batch.step,
            .first_row = batch.first_row,
            .positions = batch.ids.size(1),
            .memory = batch.memory};
  if (options_.sequence.size > 1) share_sequences(pass, batch.ids.size(0));
  if (has_token_shards()) share_tokens(pass, batch.ids.size(0));
  return pass;
}

void Gpt2::share_sequences(Pass& pass, std::int64_t rows) const {
  auto tokens = token_shares(options_.sequence, pass.positions);
  std::vector<Interval> runs;
  for (std::int64_t row = 0; row < rows; ++row)
    for (const Interval& piece : tokens[static_cast<std::size_t>(options_.sequence.rank)])
      runs.push_back({(row * pass.positions + piece.begin) * config_.n_embd,
                      (row * pass.positions + piece.end) * config_.n_embd});
  pass.shards = std::make_shared<const autograd::SequenceShards>(
      autograd::SequenceShards{options_.sequence.group, std::move(tokens)});
  pass.runs = std::make_shared<const std::vector<Interval>>(std::move(runs));
}

Tensor Gpt2::own_tokens(const Stream& stream, const Pass& pass, const Tensor& whole) const {
  if (!pass.shards) return whole;
  const auto rank = static_cast<std::size_t>(options_.sequence.rank);
  const std::int64_t rows = whole.numel() / pass.positions, count = pass.shards->count(rank);
  Tensor own(Shape{rows, count}, whole.dtype(), whole.device());
  std::int64_t begin = 0;
  for (const Interval& piece : pass.shards->tokens[rank]) {
    kernels::copy_blocks(stream, {.source = whole.as<std::int32_t>() + piece.begin,
                                  .target = own.as<std::int32_t>() + begin,
                                  .blocks = rows,
                                  .rows = 1,
                                  .count = piece.size(),
                                  .source_strides = {pass.positions, 0},
                                  .target_strides = {count, 0},
                                  .dtype = whole.dtype()});
    begin += piece.size();
  }
  return own;
}

autograd::Loss Gpt2::forward_loss(Tape& tape, const Batch& batch) {
  check(batch.ids, &batch.targets);
  require_group();
  const Pass pass = training_pass(batch);
  return head_loss(tape, pass, batch,
                   blocks(tape, pass, own_tokens(tape.stream(), pass, batch.ids)));
}

StageOutput Gpt2::forward_stage(Tape& tape, int stage, const Batch& batch, const Value& input) {
  check(batch.ids, &batch.targets);
  require_group();
  const Pass pass = training_pass(batch);
  const Value x = blocks_of_stage(tape, pass, stage, batch.ids, input);
  if (stage + 1 < pipeline_.stages()) return {x, {}};
  return {{}, head_loss(tape, pass, batch, x)};
}

Tensor Gpt2::head_logits(Tape& tape, const Tensor& hidden) {
  std::vector<std::int64_t> shape = hidden.shape().sizes();
  shape.back() = config_.vocab_size;
  Tensor logits(Shape(std::move(shape)), DType::fp32, hidden.device());
  kernels::gemm(tape.stream(), {.a = hidden.data(),
                                .b = head_weight().value.data(),
                                .c = logits.data(),
                                .m = hidden.numel() / config_.n_embd,
                                .n = config_.vocab_size,
                                .k = config_.n_embd,
                                .transpose_b = true,
                                .input_type = hidden.dtype(),
                                .output_type = DType::fp32});
  return logits;
}

Tensor Gpt2::logits(Tape& tape, const Tensor& ids) {
  TESSERA_CHECK(!tape.recording(), Code::invalid_argument,
                "logits are for reading only: use a tape that does not record");
  require_whole("logits");
  check_ids(ids, 0);
  Pass pass;
  pass.positions = ids.size(1);
  return in_stages() ? logits_through_stages(tape, pass, ids, Wanted::all)
                     : logits_of(tape, blocks(tape, pass, ids), Wanted::all);
}

Tensor Gpt2::forward_cached(Tape& tape, const Tensor& ids, KvCache& cache) {
  TESSERA_CHECK(!tape.recording(), Code::invalid_argument,
                "a cached forward pass needs a tape that does not record");
  check_ids(ids, cache.length);
  check_cache(ids, cache);
  Pass pass;
  pass.positions = ids.size(1);
  pass.cache = &cache;
  Tensor logits = in_stages() ? logits_through_stages(tape, pass, ids, Wanted::last)
                              : logits_of(tape, blocks(tape, pass, ids), Wanted::last);
  cache.length += ids.size(1);
  return logits;
}

Tensor Gpt2::logits_of(Tape& tape, const Value& x, Wanted wanted) {
  const Value at = wanted == Wanted::all ? x : Value(last_positions(tape.stream(), x.data()));
  return with_head(tape, at, [&](const Value& hidden) { return head_logits(tape, hidden.data()); });
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
