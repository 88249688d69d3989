// SPDX-License-Identifier: Apache-2.0
// What a recorded timeline shows of a pipeline's actions.
#pragma once

#include "tessera/base/timeline.hpp"
#include "tessera/parallel/pipeline_schedule.hpp"

namespace tessera::parallel {

inline SpanKind span_kind(const PipelineAction& action) {
  switch (action.kind) {
    case ActionKind::forward:
      return SpanKind::forward;
    case ActionKind::backward:
    case ActionKind::backward_input:
      return SpanKind::backward;
    case ActionKind::backward_weight:
      return SpanKind::backward_weight;
    default:
      return SpanKind::communication;
  }
}

inline const char* span_name(ActionKind kind) {
  switch (kind) {
    case ActionKind::forward:
      return "forward";
    case ActionKind::backward:
      return "backward";
    case ActionKind::backward_input:
      return "backward input";
    case ActionKind::backward_weight:
      return "backward weight";
    case ActionKind::send_activation:
      return "send activation";
    case ActionKind::receive_activation:
      return "receive activation";
    case ActionKind::send_gradient:
      return "send gradient";
    case ActionKind::receive_gradient:
      break;
  }
  return "receive gradient";
}

/// From here to the end of the scope.
inline ScopedSpan record_span(const PipelineAction& action) {
  return {span_kind(action), span_name(action.kind), [&] {
            return SpanDetails{
                .micro_batch = action.micro_batch, .stage = action.stage, .peer = action.peer};
          }};
}

}  // namespace tessera::parallel
