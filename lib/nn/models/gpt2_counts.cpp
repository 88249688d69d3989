// SPDX-License-Identifier: Apache-2.0
// Closed formulas of GPT-2's work and memory.
#include <algorithm>

#include "tessera/base/dtype.hpp"
#include "tessera/nn/models/gpt2.hpp"

namespace tessera::nn {

std::int64_t Gpt2::training_flops(std::int64_t rows, std::int64_t positions) const {
  const std::int64_t tokens = rows * token_count(options_.sequence, positions);
  const std::int64_t width = config_.n_embd;
  const std::int64_t heads = shares_.heads.size() * config_.head_dim();
  const std::int64_t layer = 2 * tokens * (4 * width * heads + 2 * width * shares_.inner.size());
  const std::int64_t attention =
      4 * rows * positions * attention_queries(positions) * config_.head_dim();
  const std::int64_t head = 2 * tokens * width * shares_.vocabulary.size();
  const auto blocks = static_cast<std::int64_t>(own_blocks().size());
  return 3 * (blocks * (layer + attention) + (has_layer(final_layer()) ? head : 0));
}

std::int64_t Gpt2::attention_queries(std::int64_t positions) const {
  const SequenceAxis& axis = options_.sequence;
  if (axis.attention == SequenceAttention::ring)
    return token_count(axis, positions) * shares_.heads.size();
  return positions * balanced_share(shares_.heads.size(), axis.size, axis.rank).size();
}

std::int64_t Gpt2::attention_bytes(std::int64_t rows, std::int64_t positions) const {
  const auto element = static_cast<std::int64_t>(size_of(options_.dtype));
  const std::int64_t head = config_.head_dim() * element;
  // q, k, v, result; one fp32 number for the backward pass.
  const std::int64_t whole = rows * attention_queries(positions) * (4 * head + 4);
  const SequenceAxis& axis = options_.sequence;
  if (axis.size == 1 || axis.attention == SequenceAttention::ring) return whole;
  // Besides, the result for own tokens and all heads.
  return whole + rows * token_count(options_.sequence, positions) * shares_.heads.size() * head;
}

std::vector<std::int64_t> Gpt2::own_blocks() const {
  std::vector<std::int64_t> blocks;
  for (int block = 0; block < config_.n_layer; ++block)
    if (has_layer(block + 1)) blocks.push_back(block);
  return blocks;
}

struct Gpt2::ActivationSizes {
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

Gpt2::ActivationSizes Gpt2::activation_sizes(std::int64_t rows, std::int64_t positions) const {
  const std::int64_t tokens = rows * token_count(options_.sequence, positions);
  const auto element = static_cast<std::int64_t>(size_of(options_.dtype));
  const TensorAxis& tensor = options_.tensor;
  const std::int64_t own =
      has_token_shards() ? balanced_share(tokens, tensor.size, tensor.rank).size() : tokens;
  const std::int64_t whole = tokens * config_.n_embd * element;
  const std::int64_t state = own * config_.n_embd * element;
  std::int64_t input = state;
  if (options_.partition_activations && !has_token_shards())
    input = balanced_share(tokens * config_.n_embd, tensor.size, tensor.rank).size() * element;
  if (options_.host_activations) input = 0;
  const std::int64_t inner = tokens * shares_.inner.size() * element;
  const std::int64_t statistics = 16 * own;  // fp32
  // Input, two norms, middle; attention; the activation's input and output.
  const std::int64_t block = 4 * state + attention_bytes(rows, positions) + 2 * inner + statistics;
  // Positions, and the ids of own tokens among others.
  const std::int64_t ids = (options_.sequence.size > 1 ? 8 : 4) * tokens;
  return {
      state, whole, input, inner, block, ids, 8 * own, config_.resid_pdrop > 0, has_token_shards()};
}

std::int64_t Gpt2::activation_bytes(std::int64_t rows, std::int64_t positions) const {
  const ActivationSizes of = activation_sizes(rows, positions);
  std::int64_t kept = has_layer(0) ? of.ids : 0;
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

std::int64_t Gpt2::kept_bytes(std::int64_t rows, std::int64_t positions) const {
  const ActivationSizes of = activation_sizes(rows, positions);
  std::int64_t kept = has_layer(0) ? of.ids : 0;
  for (const std::int64_t block : own_blocks()) kept += of.kept(options_.recompute_of(block));
  return kept + (has_layer(final_layer()) ? 2 * of.state + of.statistics_of_norm : 0);
}

std::int64_t Gpt2::recorded_bytes(std::int64_t rows, std::int64_t positions) const {
  const std::int64_t tokens = rows * positions;
  const auto element = static_cast<std::int64_t>(size_of(options_.dtype));
  // The gradients of q, k, v and of attention's result; ids and targets of passes that overwrite
  // gradients and of those that add.
  return 4 * tokens * shares_.heads.size() * config_.head_dim() * element + 24 * tokens;
}

}  // namespace tessera::nn
