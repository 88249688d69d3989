// SPDX-License-Identifier: Apache-2.0
// What a pipeline schedule costs: span, bubble and live activations, as exact fractions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tessera/base/rational.hpp"
#include "tessera/parallel/pipeline_schedule.hpp"

namespace tessera::parallel {

/// Time that one micro-batch takes in one stage. A joint backward takes both parts.
struct StageCosts {
  Rational forward = 1;
  Rational backward_input = 1;
  Rational backward_weight = 1;
};

struct PipelineCosts {
  std::vector<StageCosts> stages;  ///< one per stage
  Rational latency = 0;            ///< from the end of a send until it can be received

  /// All ranks alike: `rank_costs` are of the share of a whole rank, so that a stage of a rank with
  /// v chunks takes a v-th.
  static PipelineCosts even(const PipelineShape& resolved, const StageCosts& rank_costs,
                            const Rational& latency = 0);
};

/// The outcome of simulate(). Times begin at 0; a micro-batch's activations in a stage live from
/// the start of its forward to the end of its backward, or of its backward_weight when that is
/// apart.
class PipelineSimulation {
 public:
  struct Interval {
    std::int64_t start, end;  ///< in ticks; of a message: when it begins and ends to wait
  };

  /// End of the last computation of any rank.
  Rational makespan() const { return in_time(makespan_); }
  /// First start to last end of a rank's computations.
  Rational span(int rank) const;
  /// Time in which a rank computes.
  Rational busy(int rank) const { return in_time(of(rank).busy); }
  /// makespan - busy.
  Rational bubble(int rank) const { return in_time(makespan_ - of(rank).busy); }
  /// Bubbles of all ranks / (ranks x makespan).
  Rational bubble_fraction() const;
  /// Most activations that a rank holds at once, each of one micro-batch in one stage.
  int peak_activations(int rank) const { return of(rank).peak_activations; }
  Rational start(int rank, std::size_t action) const;
  Rational end(int rank, std::size_t action) const;

  /// Length of a tick.
  const Rational& tick() const { return tick_; }
  const std::vector<Interval>& intervals(int rank) const { return of(rank).intervals; }

 private:
  friend class PipelineSimulator;
  struct Rank {
    std::vector<Interval> intervals;  // one per action
    std::int64_t busy = 0, first_start = 0, last_end = 0;
    int peak_activations = 0;
  };
  const Rank& of(int rank) const { return ranks_.at(static_cast<std::size_t>(rank)); }
  Rational in_time(std::int64_t ticks) const { return tick_ * Rational(ticks); }

  std::vector<Rank> ranks_;
  Rational tick_ = 1;
  std::int64_t makespan_ = 0;
};

/// Executes the lists: each rank one action after the other, a receive waits for its message, a
/// send waits until the pair's buffer, `buffered_messages` for each direction of a pair of ranks,
/// has room, and takes no time of its own (an executor behaves so that keeps that many non-blocking
/// sends per peer under way). Throws invalid_argument when the schedule is wrong (see
/// check_pipeline_schedule), or locks up: then the message shows the cycle, which rank waits for
/// what.
PipelineSimulation simulate(const PipelineSchedule& schedule, const PipelineCosts& costs,
                            int buffered_messages = 1);

}  // namespace tessera::parallel
