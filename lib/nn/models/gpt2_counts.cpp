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
  const Gpt2Extent own = extent();
  return 3 * (own.blocks * (layer + attention) + (own.last ? head : 0));
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

Gpt2Extent Gpt2::extent() const {
  if (!in_stages()) return {config_.n_layer, true, true};
  std::int64_t layers = 0;
  for (const int stage : pipeline_.own) {
    const auto at = static_cast<std::size_t>(stage);
    layers += pipeline_.cuts[at + 1] - pipeline_.cuts[at];
  }
  const bool first = pipeline_.has_first(), last = pipeline_.has_last();
  return {layers - (first ? 1 : 0) - (last ? 1 : 0), first, last};
}

struct Gpt2::ActivationSizes {
  std::int64_t state;  // one value of the residual stream
  std::int64_t inner;  // of the feed-forward pair
  std::int64_t block;  // what a block makes that its backward needs
  std::int64_t kept;   // of these, with recomputation
  std::int64_t ids;    // of the tokens' places
  std::int64_t statistics_of_norm;
};

Gpt2::ActivationSizes Gpt2::activation_sizes(std::int64_t rows, std::int64_t positions) const {
  const std::int64_t tokens = rows * token_count(options_.sequence, positions);
  const auto element = static_cast<std::int64_t>(size_of(options_.dtype));
  const std::int64_t state = tokens * config_.n_embd * element;
  const std::int64_t inner = tokens * shares_.inner.size() * element;
  const std::int64_t statistics = 16 * tokens;  // fp32
  // Input, two norms, middle; attention; the activation's input and output.
  const std::int64_t block = 4 * state + attention_bytes(rows, positions) + 2 * inner + statistics;
  std::int64_t kept = block;
  if (options_.recompute == Recompute::selective) kept -= 2 * state + inner;
  if (options_.recompute == Recompute::full) kept = state;
  if (options_.recompute == Recompute::full && options_.partition_activations)
    kept =
        balanced_share(tokens * config_.n_embd, options_.tensor.size, options_.tensor.rank).size() *
        element;
  // Positions, and the ids of own tokens among others.
  const std::int64_t ids = (options_.sequence.size > 1 ? 8 : 4) * tokens;
  return {state, inner, block, kept, ids, 8 * tokens};
}

std::int64_t Gpt2::activation_bytes(std::int64_t rows, std::int64_t positions) const {
  const ActivationSizes of = activation_sizes(rows, positions);
  const Gpt2Extent own = extent();
  // While the second projection goes back: gradients of its result and of its input; and with
  // dropout, of the residual sum.
  std::int64_t backward = (config_.resid_pdrop > 0 ? 2 : 1) * of.state + of.inner;
  if (options_.recompute == Recompute::selective) backward += of.inner;
  // The block again, and its input besides the share that is kept of it.
  if (options_.recompute == Recompute::full)
    backward += of.block - (of.kept == of.state ? of.state : 0);
  // Targets of own tokens, where other ranks have the others'.
  const std::int64_t targets =
      options_.sequence.size > 1 ? 4 * rows * token_count(options_.sequence, positions) : 0;
  // Hidden states before and after, gradient.
  const std::int64_t head = own.last ? 3 * of.state + of.statistics_of_norm + targets : 0;
  return (own.first ? of.ids : 0) + own.blocks * of.kept +
         std::max(head, own.blocks > 0 ? backward : 0);
}

std::int64_t Gpt2::kept_bytes(std::int64_t rows, std::int64_t positions) const {
  const ActivationSizes of = activation_sizes(rows, positions);
  const Gpt2Extent own = extent();
  return (own.first ? of.ids : 0) + own.blocks * of.kept +
         (own.last ? 2 * of.state + of.statistics_of_norm : 0);
}

std::int64_t Gpt2::recorded_bytes(std::int64_t rows, std::int64_t positions) const {
  const std::int64_t tokens = rows * positions;
  const auto element = static_cast<std::int64_t>(size_of(options_.dtype));
  // The gradients of q, k, v and of attention's result; ids and targets of passes that overwrite
  // gradients and of those that add.
  return 4 * tokens * shares_.heads.size() * config_.head_dim() * element + 24 * tokens;
}

}  // namespace tessera::nn
