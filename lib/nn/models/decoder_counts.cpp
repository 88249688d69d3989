// SPDX-License-Identifier: Apache-2.0
// Closed formulas of a decoder's work and memory.
#include <algorithm>

#include "tessera/base/dtype.hpp"
#include "tessera/nn/models/decoder.hpp"

namespace tessera::nn {

std::int64_t Decoder::training_flops(std::int64_t rows, std::int64_t positions) const {
  const std::int64_t tokens = rows * token_count(options_.sequence, positions);
  const std::int64_t width = sizes_.width;
  const std::int64_t heads = 2 * (shares_.heads.size() + shares_.kv_heads.size()) * sizes_.head_dim;
  const std::int64_t inner = (sizes_.gated ? 3 : 2) * shares_.inner.size();
  const std::int64_t layer = 2 * tokens * width * (heads + inner);
  const std::int64_t attention =
      4 * rows * positions * attention_pairs(positions).queries * sizes_.head_dim;
  const std::int64_t head = 2 * tokens * width * shares_.vocabulary.size();
  const auto blocks = static_cast<std::int64_t>(own_blocks().size());
  return 3 * (blocks * (layer + attention) + (has_layer(final_layer()) ? head : 0));
}

Decoder::AttentionPairs Decoder::attention_pairs(std::int64_t positions) const {
  const SequenceAxis& axis = options_.sequence;
  const std::int64_t heads = shares_.heads.size(), kv_heads = shares_.kv_heads.size();
  if (axis.attention == SequenceAttention::ring) {
    const std::int64_t own = token_count(axis, positions);
    return {own * heads, own * kv_heads};
  }
  const std::int64_t own = balanced_share(kv_heads, axis.size, axis.rank).size();
  return {positions * own * (heads / kv_heads), positions * own};
}

std::int64_t Decoder::attention_bytes(std::int64_t rows, std::int64_t positions) const {
  const auto element = static_cast<std::int64_t>(size_of(options_.dtype));
  const std::int64_t head = sizes_.head_dim * element;
  const AttentionPairs own = attention_pairs(positions);
  // q, k, v, result; one fp32 number for the backward pass.
  const std::int64_t whole = rows * (own.queries * (2 * head + 4) + own.keys * 2 * head);
  const SequenceAxis& axis = options_.sequence;
  if (axis.size == 1 || axis.attention == SequenceAttention::ring) return whole;
  // Besides, the result for own tokens and all heads.
  return whole + rows * token_count(options_.sequence, positions) * shares_.heads.size() * head;
}

std::vector<std::int64_t> Decoder::own_blocks() const {
  std::vector<std::int64_t> blocks;
  for (int block = 0; block < sizes_.layers; ++block)
    if (has_layer(block + 1)) blocks.push_back(block);
  return blocks;
}

struct Decoder::ActivationSizes {
  std::int64_t state;  // one value of the residual stream: of this rank's tokens
  std::int64_t whole;  // of those that a product takes
  std::int64_t input;  // what a recomputed block keeps of its own on the device
  std::int64_t inner;  // of the feed-forward pair
  std::int64_t block;  // what a block makes that its backward needs
  std::int64_t ids;    // of the tokens' places
  std::int64_t statistics_of_norm;
  bool residual_dropout, token_shards;

  /// Of a block, until its backward.
  std::int64_t kept(Recompute recompute) const {
    if (recompute == Recompute::full) return input;
    return recompute == Recompute::selective ? block - 2 * state - inner : block;
  }

  /// Besides, while the block goes back.
  std::int64_t backward(Recompute recompute) const {
    const std::int64_t most = gradients(recompute == Recompute::selective);
    // The block again, with its input if that is not kept whole.
    if (recompute == Recompute::full) return most + block - (input == state ? state : 0);
    return most;
  }

  /// In the feed-forward pair; what `selective` recomputation brings back is there besides.
  std::int64_t gradients(bool selective) const {
    const std::int64_t again = selective ? inner : 0;
    // While the second product goes back: of its result and of its input; and with dropout, of the
    // residual sum.
    if (!token_shards) return (residual_dropout ? 2 : 1) * state + inner + again;
    const std::int64_t second = state + whole + inner + again;
    // While the first one does, when the function's values are gone: of its result, of its input
    // and of the residual sum, and the input gathered again.
    const std::int64_t first = state + 2 * whole + (selective ? state : -inner);
    return std::max(second, first);
  }

  /// Hidden states before and after the last norm, gradient; with token shards the latter two are
  /// gathered besides.
  std::int64_t head() const {
    return (token_shards ? 2 * state + 2 * whole : 3 * state) + statistics_of_norm;
  }
};

Decoder::ActivationSizes Decoder::activation_sizes(std::int64_t rows,
                                                   std::int64_t positions) const {
  const std::int64_t tokens = rows * token_count(options_.sequence, positions);
  const auto element = static_cast<std::int64_t>(size_of(options_.dtype));
  const TensorAxis& tensor = options_.tensor;
  const std::int64_t own =
      has_token_shards() ? balanced_share(tokens, tensor.size, tensor.rank).size() : tokens;
  const std::int64_t whole = tokens * sizes_.width * element;
  const std::int64_t state = own * sizes_.width * element;
  std::int64_t input = state;
  if (options_.partition_activations && !has_token_shards())
    input = balanced_share(tokens * sizes_.width, tensor.size, tensor.rank).size() * element;
  if (options_.host_activations) input = 0;
  const std::int64_t inner = tokens * shares_.inner.size() * element;
  const std::int64_t statistics = 4 * sizes_.norm_statistics * own;
  // Input, two norms, middle; attention; the activation's inputs and output.
  const std::int64_t block = 4 * state + attention_bytes(rows, positions) +
                             (sizes_.gated ? 3 : 2) * inner + 2 * statistics;
  // Positions, and in the first layer the ids of own tokens among others.
  const bool embeds = has_layer(0);
  std::int64_t ids = embeds || sizes_.rotary ? 4 * tokens : 0;
  if (embeds && options_.sequence.size > 1) ids += 4 * tokens;
  return {state,
          whole,
          input,
          inner,
          block,
          ids,
          statistics,
          sizes_.residual_dropout,
          has_token_shards()};
}

std::int64_t Decoder::activation_bytes(std::int64_t rows, std::int64_t positions) const {
  const ActivationSizes of = activation_sizes(rows, positions);
  std::int64_t kept = of.ids;
  std::int64_t most = kept;  // during the backward of a block, those below it still kept
  for (const std::int64_t block : own_blocks()) {
    kept += of.kept(options_.recompute_of(block));
    most = std::max(most, kept + of.backward(options_.recompute_of(block)));
  }
  if (!has_layer(final_layer())) return most;
  // Targets of own tokens, where other ranks have the others'.
  const std::int64_t targets =
      options_.sequence.size > 1 ? 4 * rows * token_count(options_.sequence, positions) : 0;
  return std::max(most, kept + of.head() + targets);
}

std::int64_t Decoder::kept_bytes(std::int64_t rows, std::int64_t positions) const {
  const ActivationSizes of = activation_sizes(rows, positions);
  std::int64_t kept = of.ids;
  for (const std::int64_t block : own_blocks()) kept += of.kept(options_.recompute_of(block));
  return kept + (has_layer(final_layer()) ? 2 * of.state + of.statistics_of_norm : 0);
}

std::int64_t Decoder::recorded_bytes(std::int64_t rows, std::int64_t positions) const {
  const std::int64_t tokens = rows * positions;
  const auto element = static_cast<std::int64_t>(size_of(options_.dtype));
  // The gradients of q, k, v and of attention's result; ids and targets of passes that overwrite
  // gradients and of those that add.
  const std::int64_t heads = 2 * (shares_.heads.size() + shares_.kv_heads.size());
  return tokens * heads * sizes_.head_dim * element + 24 * tokens;
}

}  // namespace tessera::nn
