// SPDX-License-Identifier: Apache-2.0
// A decoder's pass: embedding, blocks, and what the head makes of them.
#include "tessera/nn/models/decoder.hpp"

#include <utility>

#include <fmt/format.h>

#include "tessera/autograd/attention.hpp"
#include "tessera/autograd/head_loss.hpp"
#include "tessera/autograd/ring_attention.hpp"
#include "tessera/autograd/ulysses_attention.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/random.hpp"
#include "tessera/kernels/copy_blocks.hpp"
#include "tessera/kernels/embedding.hpp"
#include "tessera/kernels/gemm.hpp"

#include "nn/models/decoder_pass.hpp"
#include "nn/models/decoder_shares.hpp"

namespace tessera::nn {
namespace {

using autograd::Tape;
using autograd::Value;

constexpr int kEmbedding = 0;

}  // namespace

Decoder::Decoder(const DecoderSizes& sizes, const ModelOptions& options)
    : Model(options), sizes_(sizes), shares_(decoder_shares(sizes, options.tensor)) {
  const bool computes =
      options.dtype == DType::fp32 || options.dtype == DType::bf16 || options.dtype == DType::fp16;
  TESSERA_CHECK(computes, Code::not_supported,
                fmt::format("a model cannot compute in {}; use fp32, bf16 or fp16",
                            to_string(options.dtype)));
  options_.sequence.attention = decoder_sequence_attention(sizes_, options_);
}

Parameter Decoder::vocabulary_table(double deviation) const {
  return {split(options_.tensor, {sizes_.vocabulary, sizes_.width}, 0, {shares_.vocabulary}),
          {Initialization::Kind::normal, static_cast<float>(deviation)}};
}

void Decoder::build_units(Layers layers) {
  table_name_ = layers.embedding.front().name;
  has_position_table_ = layers.embedding.size() > 1;
  units_.push_back({"embedding", std::move(layers.embedding), kEmbedding,
                    sizes_.tied ? final_layer() : kEmbedding});
  for (std::size_t block = 0; block < layers.blocks.size(); ++block) {
    const int index = static_cast<int>(block) + 1;
    units_.push_back(
        {fmt::format("{}.{}", layers.block, block), std::move(layers.blocks[block]), index, index});
  }
  if (!sizes_.tied) layers.last.push_back({layers.head, &head_});
  units_.push_back({"final", std::move(layers.last), final_layer(), final_layer()});
  arrange_for_tensor_axis();
}

void Decoder::check_ids(const Tensor& ids, std::int64_t past) const {
  TESSERA_CHECK(ids.dtype() == DType::int32 && ids.shape().rank() == 2 && ids.numel() > 0,
                Code::invalid_argument,
                fmt::format("token ids must be int32 [rows, positions], not {} {}",
                            to_string(ids.dtype()), ids.shape().to_string()));
  TESSERA_CHECK(past + ids.size(1) <= sizes_.positions, Code::invalid_argument,
                fmt::format("a sequence of {} tokens does not fit the model's {} positions",
                            past + ids.size(1), sizes_.positions));
}

void Decoder::require_group() const {
  const auto require = [](const char* name, const auto& axis) {
    TESSERA_CHECK(axis.size == 1 || axis.group != nullptr, Code::invalid_argument,
                  fmt::format("this is rank {} of {} of a {} axis without its group: parameters to "
                              "look at, nothing to compute with",
                              axis.rank, axis.size, name));
  };
  require("tensor", options_.tensor);
  require("sequence", options_.sequence);
}

void Decoder::require_whole(const char* what) const {
  TESSERA_CHECK(is_whole(), Code::not_supported,
                fmt::format("{} of a model that is split over {} ranks are not available yet: load "
                            "its checkpoint without a tensor or sequence axis",
                            what, options_.tensor.size * options_.sequence.size));
}

void Decoder::check(const Tensor& ids, const Tensor* targets) const {
  check_ids(ids, 0);
  TESSERA_CHECK(
      targets == nullptr || (targets->dtype() == DType::int32 && targets->numel() == ids.numel()),
      Code::invalid_argument,
      fmt::format("the targets of ids {} are {} {}", ids.shape().to_string(),
                  to_string(targets->dtype()), targets->shape().to_string()));
}

autograd::DropoutSite Decoder::dropout_site(const Pass& pass, std::int64_t site,
                                            double probability) const {
  if (!pass.dropout) return {};
  if (pass.memory != nullptr)
    return {.probability = static_cast<float>(probability),
            .seed = pass.seed,
            .stream = static_cast<std::uint64_t>(site),
            .variables = pass.memory->variables,
            .row_elements = pass.positions * sizes_.width};
  return {.probability = static_cast<float>(probability),
          .seed = pass.seed,
          .stream = mix(pass.step, static_cast<std::uint64_t>(site)),
          .offset = pass.first_row * pass.positions * sizes_.width,
          .runs = pass.runs};
}

Value Decoder::attend(Tape& tape, const Pass& pass, std::int64_t layer, const Value& qkv,
                      const Attention& options) {
  if (pass.cache != nullptr) return attend_cached(tape, pass, layer, qkv.data(), options.scale);
  const autograd::SelfAttention arguments{
      .heads = shares_.heads.size(),
      .kv_heads = shares_.kv_heads.size(),
      .scale = options.scale,
      .dropout = options.dropout,
      .batch_offset = pass.memory != nullptr ? 0 : pass.first_row,
      .head_offset = shares_.heads.begin,
      .all_heads = sizes_.heads};
  if (!pass.shards) return autograd::self_attention(tape, qkv, arguments);
  if (options_.sequence.attention == SequenceAttention::ring)
    return autograd::ring_attention(tape, qkv, arguments, pass.shards);
  return autograd::ulysses_attention(tape, qkv, arguments, pass.shards);
}

Value Decoder::block(Tape& tape, const Pass& pass, std::int64_t layer, const Value& x) {
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

Value Decoder::blocks(Tape& tape, const Pass& pass, const Tensor& ids) {
  require_all_layers();
  tape.enter(kEmbedding);
  Value x = embed(tape, pass, ids);
  if (!sizes_.tied) tape.leave(kEmbedding);
  for (std::int64_t layer = 0; layer < sizes_.layers; ++layer) x = block(tape, pass, layer, x);
  return x;
}

template <typename Head>
auto Decoder::with_head(Tape& tape, const Value& x, Head head) {
  const int unit = unit_of(final_layer());
  tape.enter(unit);
  const Value hidden = final_norm(tape, x);
  if (sizes_.tied) tape.leave(unit);
  if (sizes_.tied && in_stages()) tape.enter(head_unit());
  auto result = head(hidden);
  tape.leave(head_unit());
  return result;
}

autograd::Loss Decoder::head_loss(Tape& tape, const Pass& pass, const Batch& batch,
                                  const Value& x) {
  const Tensor targets = own_tokens(tape.stream(), pass, batch.targets);
  return with_head(tape, x, [&](const Value& hidden) {
    return autograd::head_loss(tape, hidden, head_weight(), targets, batch.gradient_scale,
                               batch.memory, vocabulary_part());
  });
}

Decoder::Pass Decoder::training_pass(const Stream& stream, const Batch& batch) const {
  const std::int64_t rows = batch.ids.size(0);
  Pass pass{.dropout = batch.training,
            .seed = batch.seed,
            .step = batch.step,
            .first_row = batch.first_row,
            .positions = batch.ids.size(1),
            .memory = batch.memory};
  if (options_.sequence.size > 1) share_sequences(pass, rows);
  if (has_token_shards()) share_tokens(pass, rows);
  number_tokens(pass, stream, rows);
  return pass;
}

Decoder::Pass Decoder::reading_pass(const Stream& stream, const Tensor& ids, KvCache* cache) const {
  Pass pass{.positions = ids.size(1), .cache = cache};
  number_tokens(pass, stream, ids.size(0));
  return pass;
}

void Decoder::number_tokens(Pass& pass, const Stream& stream, std::int64_t rows) const {
  if (!sizes_.rotary && !has_layer(kEmbedding)) return;
  const Tensor whole(Shape{rows, pass.positions}, DType::int32, stream.device());
  kernels::position_ids(stream, whole.as<std::int32_t>(), rows, pass.positions,
                        pass.cache ? pass.cache->length : 0);
  pass.places = own_tokens(stream, pass, whole);
}

void Decoder::share_sequences(Pass& pass, std::int64_t rows) const {
  auto tokens = token_shares(options_.sequence, pass.positions);
  std::vector<Interval> runs;
  for (std::int64_t row = 0; row < rows; ++row)
    for (const Interval& piece : tokens[static_cast<std::size_t>(options_.sequence.rank)])
      runs.push_back({(row * pass.positions + piece.begin) * sizes_.width,
                      (row * pass.positions + piece.end) * sizes_.width});
  pass.shards = std::make_shared<const autograd::SequenceShards>(
      autograd::SequenceShards{options_.sequence.group, std::move(tokens)});
  pass.runs = std::make_shared<const std::vector<Interval>>(std::move(runs));
}

Tensor Decoder::own_tokens(const Stream& stream, const Pass& pass, const Tensor& whole) const {
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

autograd::Loss Decoder::forward_loss(Tape& tape, const Batch& batch) {
  check(batch.ids, &batch.targets);
  require_group();
  const Pass pass = training_pass(tape.stream(), batch);
  return head_loss(tape, pass, batch,
                   blocks(tape, pass, own_tokens(tape.stream(), pass, batch.ids)));
}

StageOutput Decoder::forward_stage(Tape& tape, int stage, const Batch& batch, const Value& input) {
  check(batch.ids, &batch.targets);
  require_group();
  const Pass pass = training_pass(tape.stream(), batch);
  const Value x = blocks_of_stage(tape, pass, stage, batch.ids, input);
  if (stage + 1 < pipeline_.stages()) return {x, {}};
  return {{}, head_loss(tape, pass, batch, x)};
}

Tensor Decoder::head_logits(Tape& tape, const Tensor& hidden) {
  std::vector<std::int64_t> shape = hidden.shape().sizes();
  shape.back() = sizes_.vocabulary;
  Tensor logits(Shape(std::move(shape)), DType::fp32, hidden.device());
  kernels::gemm(tape.stream(), {.a = hidden.data(),
                                .b = head_weight().value.data(),
                                .c = logits.data(),
                                .m = hidden.numel() / sizes_.width,
                                .n = sizes_.vocabulary,
                                .k = sizes_.width,
                                .transpose_b = true,
                                .input_type = hidden.dtype(),
                                .output_type = DType::fp32});
  return logits;
}

Tensor Decoder::logits(Tape& tape, const Tensor& ids) {
  TESSERA_CHECK(!tape.recording(), Code::invalid_argument,
                "logits are for reading only: use a tape that does not record");
  require_whole("logits");
  check_ids(ids, 0);
  const Pass pass = reading_pass(tape.stream(), ids, nullptr);
  return in_stages() ? logits_through_stages(tape, pass, ids, Wanted::all)
                     : logits_of(tape, blocks(tape, pass, ids), Wanted::all);
}

Tensor Decoder::forward_cached(Tape& tape, const Tensor& ids, KvCache& cache) {
  TESSERA_CHECK(!tape.recording(), Code::invalid_argument,
                "a cached forward pass needs a tape that does not record");
  check_ids(ids, cache.length);
  check_cache(ids, cache);
  const Pass pass = reading_pass(tape.stream(), ids, &cache);
  Tensor logits = in_stages() ? logits_through_stages(tape, pass, ids, Wanted::last)
                              : logits_of(tape, blocks(tape, pass, ids), Wanted::last);
  cache.length += ids.size(1);
  return logits;
}

Tensor Decoder::logits_of(Tape& tape, const Value& x, Wanted wanted) {
  const Value at = wanted == Wanted::all ? x : Value(last_positions(tape.stream(), x.data()));
  return with_head(tape, at, [&](const Value& hidden) { return head_logits(tape, hidden.data()); });
}

}  // namespace tessera::nn
