// SPDX-License-Identifier: Apache-2.0
// Makes and executes small pipelines for tests.
#pragma once

#include <string>

#include "tessera/parallel/pipeline_simulation.hpp"
#include "tessera/parallel/pipeline_timeline.hpp"

namespace tessera::parallel::test {

/// A schedule with what it costs.
struct Pipeline {
  PipelineSchedule schedule;
  PipelineSimulation simulation;

  /// For failure messages.
  std::string text() const {
    std::string text = schedule.shape.to_string();
    if (schedule.shape.ranks * schedule.shape.micro_batches > 200) return text;
    text += '\n';
    text += draw_timeline(schedule, simulation);
    return text;
  }
};

/// Costs are of a whole rank's share.
inline Pipeline run(PipelineKind kind, int ranks, int micro_batches, int chunks = 0,
                    const StageCosts& costs = {}, const Rational& latency = 0) {
  PipelineSchedule schedule = make_pipeline_schedule({kind, ranks, micro_batches, chunks});
  PipelineSimulation simulation =
      simulate(schedule, PipelineCosts::even(schedule.shape, costs, latency));
  return {std::move(schedule), std::move(simulation)};
}

/// Every forward, input gradient and weight gradient of a stage takes one.
inline Pipeline run_in_steps(PipelineKind kind, int ranks, int micro_batches, int chunks = 0) {
  const int shares = PipelineShape{kind, ranks, micro_batches, chunks}.resolved().chunks;
  return run(kind, ranks, micro_batches, chunks, {shares, shares, shares});
}

}  // namespace tessera::parallel::test
