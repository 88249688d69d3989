// SPDX-License-Identifier: Apache-2.0
// Output projection fused with cross-entropy: logits of a whole batch are never held.
#pragma once

#include <cstdint>
#include <memory>

#include "tessera/autograd/tape.hpp"
#include "tessera/autograd/vocabulary_part.hpp"
#include "tessera/autograd/weight.hpp"
#include "tessera/device/buffer.hpp"
#include "tessera/kernels/pass_variables.hpp"

namespace tessera::autograd {

/// Sum of the losses of a micro-batch. Without recording it is known at once. With recording it is
/// known after Tape::backward: the projection, the losses and their gradients are computed
/// together, chunk by chunk, when the backward pass reaches the head (its first node), so that no
/// logits are kept or computed twice and gradients are written in the backward phase only.
class Loss {
 public:
  bool known() const { return state_ && state_->known; }
  /// Not scaled: the sum over targets >= 0, in fp64 by ascending row. Waits for a GPU to get there:
  /// ask late. internal if not known yet.
  double sum() const;

  struct State {
    Buffer losses;  // one a row, in host memory once `arrived` is reached
    std::int64_t rows = 0;
    Event arrived;
    bool known = false;
    DType dtype = DType::fp32;  // or fp64, of losses
    double sum = 0;             // of what was added up already
  };
  explicit Loss(std::shared_ptr<State> state) : state_(std::move(state)) {}
  Loss() = default;

 private:
  std::shared_ptr<State> state_;
};

/// Brings losses [rows] fp32, which earlier work of the stream computes, to the host without
/// waiting for them.
Loss read_losses(const Stream& stream, const float* losses, std::int64_t rows);
/// The same of losses, or sums of some, fp32 or fp64; on the CPU they stay where they are.
Loss read_losses(const Stream& stream, Buffer losses, std::int64_t rows, DType dtype);

/// Fixed places of a pass that is recorded once and launched for many micro-batches.
struct PassMemory {
  const kernels::PassVariables* variables;
  float* losses;  // [rows]: for read_losses() after each launch
};

/// Bytes of one chunk's logits at most, except that a chunk has at least kHeadMinimumRows rows.
inline constexpr std::int64_t kHeadChunkBytes = std::int64_t{64} << 20;
inline constexpr std::int64_t kHeadMinimumRows = 256;

/// hidden [..., width], weight [vocabulary, width], targets [...] int32 (negative: none). The
/// gradient of the objective is gradient_scale * sum. Scratch (Purpose::workspace): one chunk of
/// logits; and with bf16 gradients and more than one chunk, the weight's gradient in fp32, so that
/// it is rounded once. With `memory`, gradient_scale is the one that lies there, the losses of a
/// recording tape go there, and the result is never known. Where `weight` is a part of the
/// vocabulary's, each rank of the group has the logits of its part only; three numbers a row
/// travel, and the gradient of `hidden` is added up over the group. Collective then, and without
/// `memory`. Token shards [own tokens, width] are gathered when the losses are computed.
Loss head_loss(Tape& tape, const Value& hidden, Weight& weight, const Tensor& targets,
               float gradient_scale, const PassMemory* memory = nullptr,
               const VocabularyPart& part = {});

}  // namespace tessera::autograd
