// SPDX-License-Identifier: Apache-2.0
// What a way of dividing a model over ranks costs: memory, bytes sent and time of a step.
#pragma once

#include <cstdint>
#include <string>

#include "tessera/base/mesh_shape.hpp"
#include "tessera/config/run_config.hpp"
#include "tessera/parallel/pipeline_schedule.hpp"
#include "tessera/planning/machine.hpp"
#include "tessera/planning/workload.hpp"

namespace tessera::planning {

/// A way of dividing the work.
struct Layout {
  MeshShape mesh{1, 1, 1, 1};
  int stage = 0;                 ///< of ZeRO, over data and sequence together
  std::int64_t micro_batch = 1;  ///< sequences
  config::Recompute recompute = config::Recompute::none;
  int recompute_every = 1;  ///< as nn::ModelOptions::recompute_every
  parallel::PipelineKind schedule = parallel::PipelineKind::one_forward_one_backward;
  int chunks = 1;                  ///< of a rank of the pipeline
  bool sequence_parallel = false;  ///< as nn::ModelOptions::sequence_parallel

  /// Micro-batches of a step.
  std::int64_t accumulation(const Workload& work) const {
    return work.batch / (mesh.data * micro_batch);
  }
};

/// Bytes of the rank that has most: that of the first pipeline stage.
struct MemoryForecast {
  std::int64_t states = 0;  ///< parameters, gradients, optimizer, gathered units, buckets
  std::int64_t activations = 0;
  std::int64_t total() const { return states + activations; }
};

/// Bytes that a rank of a stage in the middle of the pipeline sends in a step.
struct TrafficForecast {
  double tensor = 0, sequence = 0, pipeline = 0, data = 0;
};

/// Seconds of a step, one after the other; what overlaps is in the part that hides it.
struct TimeForecast {
  double compute = 0;    ///< products, and what reads and writes memory between them
  double tensor = 0;     ///< communication of the axis
  double sequence = 0;   ///< the same
  double pipeline = 0;   ///< messages between stages
  double bubble = 0;     ///< waiting at both ends of the schedule
  double data = 0;       ///< what of gradients and parameters is not hidden
  double optimizer = 0;  ///< the update
  double total() const {
    return compute + tensor + sequence + pipeline + bubble + data + optimizer;
  }
};

struct Forecast {
  MemoryForecast memory;
  TrafficForecast traffic;
  TimeForecast seconds;
  double bubble_fraction = 0;  ///< of the pipeline's time
  double flops_per_rank = 0;   ///< model FLOPs (nothing twice) a second and rank
  double tokens_per_second = 0;
};

/// The model behind it is in doc/scaling.md: products at the machine's rate for the width of a
/// rank's weights; memory-bound work by the bytes it moves; messages at latency + bytes /
/// bandwidth; the bubbles of doc/pipeline-schedules.md; ZeRO's gradients hidden behind the last
/// backward, and stage 3's gathers behind all of it, where the machine overlaps. Pure arithmetic.
/// `layout` must divide the batch, with a stage of at least one layer.
Forecast forecast(const Workload& work, const Machine& machine, const Layout& layout);

}  // namespace tessera::planning
