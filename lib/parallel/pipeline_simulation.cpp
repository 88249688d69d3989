// SPDX-License-Identifier: Apache-2.0
// Executes pipeline schedules in whole ticks.
#include "tessera/parallel/pipeline_simulation.hpp"

#include <algorithm>
#include <numeric>
#include <string>
#include <unordered_map>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/shape.hpp"

namespace tessera::parallel {
namespace {

std::int64_t least_common_multiple(std::int64_t a, std::int64_t b) {
  return checked_multiply(a / std::gcd(a, b), b);
}

// Messages of one directed pair of ranks.
struct Channel {
  std::vector<std::int64_t> arrivals;  // of each message sent
  std::vector<std::int64_t> taken;     // when each message left the buffer
};

// A common denominator of all costs, and the costs in its parts.
class Ticks {
 public:
  explicit Ticks(const PipelineCosts& costs) {
    for (const StageCosts& stage : costs.stages)
      for (const Rational& cost : {stage.forward, stage.backward_input, stage.backward_weight})
        include(cost);
    include(costs.latency);
  }
  std::int64_t of(const Rational& cost) const {
    return checked_multiply(cost.numerator(), per_unit_ / cost.denominator());
  }
  Rational length() const { return {1, per_unit_}; }

 private:
  void include(const Rational& cost) {
    TESSERA_CHECK(
        cost >= Rational(0), Code::invalid_argument,
        fmt::format("a pipeline action costs {}: costs cannot be negative", cost.to_string()));
    per_unit_ = least_common_multiple(per_unit_, cost.denominator());
  }
  std::int64_t per_unit_ = 1;
};

struct StageTicks {
  std::int64_t forward, input, weight;

  std::int64_t of(ActionKind kind) const {
    if (kind == ActionKind::forward) return forward;
    if (kind == ActionKind::backward_input) return input;
    if (kind == ActionKind::backward_weight) return weight;
    return kind == ActionKind::backward ? input + weight : 0;
  }
};

}  // namespace

class PipelineSimulator {
 public:
  PipelineSimulator(const PipelineSchedule& schedule, const PipelineCosts& costs, int buffer)
      : schedule_(schedule),
        buffer_(static_cast<std::size_t>(buffer)),
        next_(schedule.actions.size()),
        clock_(schedule.actions.size()) {
    const Ticks ticks(costs);
    for (const StageCosts& stage : costs.stages)
      stages_.push_back({ticks.of(stage.forward), ticks.of(stage.backward_input),
                         ticks.of(stage.backward_weight)});
    latency_ = ticks.of(costs.latency);
    result_.tick_ = ticks.length();
    result_.ranks_.resize(schedule.actions.size());
  }

  PipelineSimulation run() {
    for (int rank = schedule_.shape.ranks - 1; rank >= 0; --rank) runnable_.push_back(rank);
    while (!runnable_.empty()) {
      const int rank = runnable_.back();
      runnable_.pop_back();
      advance(rank);
    }
    check_finished();
    for (int rank = 0; rank < schedule_.shape.ranks; ++rank) sum_up(rank);
    return std::move(result_);
  }

 private:
  static std::size_t at(int index) { return static_cast<std::size_t>(index); }
  const std::vector<PipelineAction>& list(int rank) const { return schedule_.actions[at(rank)]; }

  Channel& channel(int from, int to) {
    return channels_[std::int64_t{from} * schedule_.shape.ranks + to];
  }

  // Executes the rank's actions up to the first that has to wait for another rank.
  void advance(int rank) {
    const auto& actions = list(rank);
    for (std::size_t& next = next_[at(rank)]; next < actions.size(); ++next)
      if (!execute(rank, actions[next])) return;
  }

  bool execute(int rank, const PipelineAction& action) {
    std::int64_t& clock = clock_[at(rank)];
    const std::int64_t start = clock;
    if (action.is_send() && !send(rank, action.peer)) return false;
    if (action.is_receive() && !receive(rank, action.peer)) return false;
    if (action.computes()) clock = checked_add(clock, stages_[at(action.stage)].of(action.kind));
    result_.ranks_[at(rank)].intervals.push_back({start, clock});
    return true;
  }

  bool send(int rank, int peer) {
    Channel& outgoing = channel(rank, peer);
    const std::size_t sent = outgoing.arrivals.size();
    std::int64_t& clock = clock_[at(rank)];
    if (sent >= buffer_) {
      if (outgoing.taken.size() <= sent - buffer_) return false;
      clock = std::max(clock, outgoing.taken[sent - buffer_]);
    }
    outgoing.arrivals.push_back(checked_add(clock, latency_));
    runnable_.push_back(peer);
    return true;
  }

  bool receive(int rank, int peer) {
    Channel& incoming = channel(peer, rank);
    const std::size_t received = incoming.taken.size();
    if (incoming.arrivals.size() <= received) return false;
    std::int64_t& clock = clock_[at(rank)];
    clock = std::max(clock, incoming.arrivals[received]);
    incoming.taken.push_back(clock);
    runnable_.push_back(peer);
    return true;
  }

  bool finished(int rank) const { return next_[at(rank)] == list(rank).size(); }

  // The lists match (they were checked), so a rank that waits always waits for one that waits too.
  void check_finished() const {
    int rank = 0;
    while (rank < schedule_.shape.ranks && finished(rank)) ++rank;
    if (rank == schedule_.shape.ranks) return;
    std::vector<bool> seen(next_.size());
    for (; !seen[at(rank)]; rank = waiting_for(rank)) seen[at(rank)] = true;
    std::string cycle;
    const int first = rank;
    do {
      const PipelineAction& action = list(rank)[next_[at(rank)]];
      cycle += fmt::format("\n  rank {} waits for rank {} in action {}: {}", rank, action.peer,
                           next_[at(rank)], action.to_string());
      rank = waiting_for(rank);
    } while (rank != first);
    fail(Code::invalid_argument,
         fmt::format("{} locks up with {} buffered message(s) per pair of ranks:{}",
                     schedule_.shape.to_string(), buffer_, cycle));
  }

  int waiting_for(int rank) const { return list(rank)[next_[at(rank)]].peer; }

  void sum_up(int rank) {
    auto& summary = result_.ranks_[at(rank)];
    int live = 0;
    bool started = false;
    for (std::size_t k = 0; k < list(rank).size(); ++k) {
      const PipelineAction& action = list(rank)[k];
      if (!action.computes()) continue;
      const auto [start, end] = summary.intervals[k];
      if (!started) summary.first_start = start;
      started = true;
      summary.busy += end - start;
      summary.last_end = end;
      if (action.kind == ActionKind::forward)
        summary.peak_activations = std::max(summary.peak_activations, ++live);
      else if (action.kind != ActionKind::backward_input)
        --live;
    }
    result_.makespan_ = std::max(result_.makespan_, summary.last_end);
  }

  const PipelineSchedule& schedule_;
  std::size_t buffer_;
  std::vector<StageTicks> stages_;
  std::int64_t latency_ = 0;
  std::vector<std::size_t> next_;
  std::vector<std::int64_t> clock_;
  std::vector<int> runnable_;
  std::unordered_map<std::int64_t, Channel> channels_;
  PipelineSimulation result_;
};

PipelineCosts PipelineCosts::even(const PipelineShape& resolved, const StageCosts& rank_costs,
                                  const Rational& latency) {
  const Rational part(1, resolved.chunks);
  const StageCosts stage = {rank_costs.forward * part, rank_costs.backward_input * part,
                            rank_costs.backward_weight * part};
  return {std::vector<StageCosts>(static_cast<std::size_t>(resolved.stages()), stage), latency};
}

Rational PipelineSimulation::span(int rank) const {
  return in_time(of(rank).last_end - of(rank).first_start);
}

Rational PipelineSimulation::bubble_fraction() const {
  if (makespan_ == 0) return 0;
  std::int64_t bubbles = 0;
  for (const Rank& rank : ranks_) bubbles = checked_add(bubbles, makespan_ - rank.busy);
  return Rational(bubbles, makespan_) / Rational(static_cast<std::int64_t>(ranks_.size()));
}

Rational PipelineSimulation::start(int rank, std::size_t action) const {
  return in_time(of(rank).intervals.at(action).start);
}

Rational PipelineSimulation::end(int rank, std::size_t action) const {
  return in_time(of(rank).intervals.at(action).end);
}

PipelineSimulation simulate(const PipelineSchedule& schedule, const PipelineCosts& costs,
                            int buffered_messages) {
  check_pipeline_schedule(schedule);
  TESSERA_CHECK(buffered_messages >= 1, Code::invalid_argument,
                fmt::format("a buffer of {} messages: at least 1", buffered_messages));
  TESSERA_CHECK(costs.stages.size() == static_cast<std::size_t>(schedule.shape.stages()),
                Code::invalid_argument,
                fmt::format("costs of {} stages for {}, which has {} stages", costs.stages.size(),
                            schedule.shape.to_string(), schedule.shape.stages()));
  return PipelineSimulator(schedule, costs, buffered_messages).run();
}

}  // namespace tessera::parallel
