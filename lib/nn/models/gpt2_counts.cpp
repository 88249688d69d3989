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
      4 * rows * positions * positions * attention_heads() * config_.head_dim();
  const std::int64_t head = 2 * tokens * width * shares_.vocabulary.size();
  return 3 * (config_.n_layer * (layer + attention) + head);
}

std::int64_t Gpt2::attention_heads() const {
  const SequenceAxis& axis = options_.sequence;
  return balanced_share(shares_.heads.size(), axis.size, axis.rank).size();
}

std::int64_t Gpt2::attention_bytes(std::int64_t rows, std::int64_t positions) const {
  const auto element = static_cast<std::int64_t>(size_of(options_.dtype));
  const std::int64_t head = config_.head_dim() * element;
  // q, k, v, result; one fp32 number for the backward pass.
  const std::int64_t whole = rows * positions * attention_heads() * (4 * head + 4);
  if (options_.sequence.size == 1) return whole;
  // Besides, the result for own tokens and all heads.
  return whole + rows * token_count(options_.sequence, positions) * shares_.heads.size() * head;
}

std::int64_t Gpt2::activation_bytes(std::int64_t rows, std::int64_t positions) const {
  const std::int64_t tokens = rows * token_count(options_.sequence, positions);
  const auto element = static_cast<std::int64_t>(size_of(options_.dtype));
  const std::int64_t state = tokens * config_.n_embd * element;  // one value of the residual stream
  const std::int64_t inner = tokens * shares_.inner.size() * element;
  const std::int64_t statistics = 16 * tokens;  // fp32
  // Input, two norms, middle; attention; the activation's input and output.
  const std::int64_t block = 4 * state + attention_bytes(rows, positions) + 2 * inner + statistics;
  // While the second projection goes back: gradients of its result and of its input; and with
  // dropout, of the residual sum.
  const std::int64_t block_backward = (config_.resid_pdrop > 0 ? 2 : 1) * state + inner;
  const std::int64_t head = 3 * state + 8 * tokens;  // hidden states before and after, gradient
  // Positions, and the ids of own tokens among others.
  const std::int64_t ids = (options_.sequence.size > 1 ? 8 : 4) * tokens;
  const std::int64_t layers = config_.n_layer;
  switch (options_.recompute) {
    case Recompute::none:
      return ids + layers * block + std::max(head, block_backward);
    case Recompute::selective:
      return ids + layers * (block - 2 * state - inner) + std::max(head, block_backward + inner);
    case Recompute::full:
      return ids + layers * state + std::max(head, block - state + block_backward);
  }
  return 0;
}

std::int64_t Gpt2::recorded_bytes(std::int64_t rows, std::int64_t positions) const {
  const std::int64_t tokens = rows * positions;
  const auto element = static_cast<std::int64_t>(size_of(options_.dtype));
  // The gradients of q, k, v and of attention's result; ids and targets of passes that overwrite
  // gradients and of those that add.
  return 4 * tokens * shares_.heads.size() * config_.head_dim() * element + 24 * tokens;
}

}  // namespace tessera::nn
