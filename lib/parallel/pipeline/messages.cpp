// SPDX-License-Identifier: Apache-2.0
// Which message a computation waits for and which it makes.
#include "parallel/pipeline/messages.hpp"

namespace tessera::parallel::pipeline {
namespace {

bool makes_gradient(const PipelineAction& action) {
  return action.kind == ActionKind::backward || action.kind == ActionKind::backward_input;
}

// `kind` of the same stage and micro-batch, exchanged with the rank of stage `other`.
std::optional<PipelineAction> message(const PipelineShape& shape, const PipelineAction& computation,
                                      ActionKind kind, int other) {
  if (other < 0 || other >= shape.stages()) return std::nullopt;
  const int peer = shape.rank_of(other);
  if (peer == shape.rank_of(computation.stage)) return std::nullopt;
  return PipelineAction{kind, computation.micro_batch, computation.stage, peer};
}

}  // namespace

std::optional<PipelineAction> needed_message(const PipelineShape& shape,
                                             const PipelineAction& computation) {
  const int stage = computation.stage;
  if (computation.kind == ActionKind::forward)
    return message(shape, computation, ActionKind::receive_activation, stage - 1);
  if (makes_gradient(computation))
    return message(shape, computation, ActionKind::receive_gradient, stage + 1);
  return std::nullopt;
}

std::optional<PipelineAction> made_message(const PipelineShape& shape,
                                           const PipelineAction& computation) {
  const int stage = computation.stage;
  if (computation.kind == ActionKind::forward)
    return message(shape, computation, ActionKind::send_activation, stage + 1);
  if (makes_gradient(computation))
    return message(shape, computation, ActionKind::send_gradient, stage - 1);
  return std::nullopt;
}

PipelineAction matching_receive(const PipelineAction& send, int sender) {
  const bool activation = send.kind == ActionKind::send_activation;
  return {activation ? ActionKind::receive_activation : ActionKind::receive_gradient,
          send.micro_batch, activation ? send.stage + 1 : send.stage - 1, sender};
}

}  // namespace tessera::parallel::pipeline
