// SPDX-License-Identifier: Apache-2.0
// The bubble of a recorded pipeline beside what is expected of it.
#pragma once

#include <optional>
#include <string>

#include "apps/tessera/inspect/timeline_data.hpp"

namespace tessera::app {

/// Fractions of the time from the first to the last computation of a pipeline's ranks in a step.
struct PipelineBubble {
  std::string schedule;          // "1f1b, 2 ranks x 1 chunks, 8 micro-batches"
  double measured = 0;           // mean of the recorded steps and pipelines
  double simulated = 0;          // with the measured mean times of each stage
  std::optional<double> closed;  // by formula, of stages that are alike; where it holds
  double seconds = 0;            // measured, of a step
  double simulated_seconds = 0;
};

/// nullopt for a timeline without a pipeline, or without a whole step of one.
std::optional<PipelineBubble> measure_bubble(const Timeline& timeline);

}  // namespace tessera::app
