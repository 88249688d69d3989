// SPDX-License-Identifier: Apache-2.0
// Simulated pipelines: known times, deadlocks, and what the costs may be.
#include "tessera/parallel/pipeline_simulation.hpp"

#include <algorithm>

#include <gtest/gtest.h>

#include "parallel/pipeline_testing.hpp"
#include "support/expect_error.hpp"

namespace tessera::parallel {
namespace {

using tessera::test::expect_error;
using test::Pipeline;
using test::run;

constexpr auto k1F1B = PipelineKind::one_forward_one_backward;

std::vector<int> peaks(const Pipeline& run) {
  std::vector<int> peaks;
  for (int rank = 0; rank < run.schedule.shape.ranks; ++rank)
    peaks.push_back(run.simulation.peak_activations(rank));
  return peaks;
}

struct Known {
  PipelineKind kind;
  int ranks, micro_batches, chunks;
  Rational makespan;
  std::vector<int> peaks;
};

// Published and hand-made values for F = I = W = 1 of a whole rank.
TEST(PipelineSimulation, KnownMakespansAndPeaks) {
  const std::vector<Known> all = {
      {PipelineKind::gpipe, 4, 8, 1, 33, {8, 8, 8, 8}},
      {k1F1B, 4, 8, 1, 33, {4, 3, 2, 1}},
      {k1F1B, 4, 12, 1, 45, {4, 3, 2, 1}},
      {k1F1B, 8, 16, 1, 69, {8, 7, 6, 5, 4, 3, 2, 1}},
      {k1F1B, 4, 2, 1, 15, {2, 2, 2, 1}},
      {k1F1B, 4, 3, 1, 18, {3, 3, 2, 1}},
      {k1F1B, 2, 5, 1, 18, {2, 1}},
      {PipelineKind::interleaved, 4, 8, 2, {57, 2}, {11, 9, 7, 5}},
      {PipelineKind::interleaved, 4, 8, 4, {105, 4}, {19, 17, 15, 13}},
      {PipelineKind::interleaved, 8, 16, 2, {117, 2}, {23, 21, 19, 17, 15, 13, 11, 9}},
      {PipelineKind::interleaved, 2, 5, 2, {33, 2}, {6, 4}},
      {PipelineKind::zero_bubble, 4, 8, 1, 27, {4, 4, 4, 4}},
      {PipelineKind::zero_bubble, 8, 16, 1, 55, {8, 8, 8, 8, 8, 8, 8, 8}},
      {PipelineKind::zb_v, 4, 8, 2, {51, 2}, {8, 8, 8, 8}},
      {PipelineKind::zb_v, 4, 12, 2, {75, 2}, {8, 8, 8, 8}},
      {PipelineKind::zb_v, 8, 16, 2, {103, 2}, std::vector<int>(8, 16)},
  };
  for (const Known& known : all) {
    const Pipeline made = run(known.kind, known.ranks, known.micro_batches, known.chunks);
    EXPECT_EQ(made.simulation.makespan().to_string(), known.makespan.to_string()) << made.text();
    EXPECT_EQ(peaks(made), known.peaks) << made.text();
  }
}

TEST(PipelineSimulation, UnequalCostsAndLatency) {
  const StageCosts costs = {1, {6, 5}, {4, 5}};
  const auto makespan = [&](PipelineKind kind, const Rational& latency) {
    return run(kind, 4, 8, 0, costs, latency).simulation.makespan().to_string();
  };
  EXPECT_EQ(makespan(k1F1B, 0), "33");
  EXPECT_EQ(makespan(PipelineKind::interleaved, 0), "57/2");
  EXPECT_EQ(makespan(PipelineKind::zero_bubble, 0), "141/5");
  EXPECT_EQ(makespan(PipelineKind::zb_v, 0), "129/5");
  EXPECT_EQ(makespan(k1F1B, {1, 10}), "173/5");
  EXPECT_EQ(makespan(PipelineKind::interleaved, {1, 10}), "299/10");
  EXPECT_EQ(makespan(PipelineKind::zero_bubble, {1, 10}), "147/5");
  EXPECT_EQ(makespan(PipelineKind::zb_v, {1, 10}), "271/10");
}

TEST(PipelineSimulation, TimesOfEveryAction) {
  const Pipeline made = run(k1F1B, 2, 1, 0, {2, 1, 3}, {1, 2});
  const auto times = [&](int rank) {
    std::string text;
    const auto& list = made.schedule.actions[static_cast<std::size_t>(rank)];
    for (std::size_t k = 0; k < list.size(); ++k)
      text += made.simulation.start(rank, k).to_string() + "-" +
              made.simulation.end(rank, k).to_string() + " ";
    return text;
  };
  // Forward, send; the gradient arrives half a unit after it was made.
  EXPECT_EQ(times(0), "0-2 2-2 2-9 9-13 ") << made.text();
  EXPECT_EQ(times(1), "0-5/2 5/2-9/2 9/2-17/2 17/2-17/2 ") << made.text();
  EXPECT_EQ(made.simulation.makespan(), Rational(13));
  EXPECT_EQ(made.simulation.busy(0), Rational(6));
  EXPECT_EQ(made.simulation.bubble(1), Rational(7));
  EXPECT_EQ(made.simulation.span(1), Rational(6));
  EXPECT_EQ(made.simulation.bubble_fraction(), Rational(7, 13));
}

TEST(PipelineSimulation, StagesMayDiffer) {
  const PipelineSchedule schedule = make_pipeline_schedule({k1F1B, 2, 6});
  const PipelineSimulation simulation = simulate(schedule, {{{1, 1, 1}, {2, 2, 2}}, 0});
  EXPECT_EQ(simulation.busy(0), Rational(18));
  EXPECT_EQ(simulation.busy(1), Rational(36));
  EXPECT_EQ(simulation.makespan(), Rational(1 + 36 + 2)) << "the slow rank never waits";
}

// Rank 0 sends all activations before it takes a gradient, rank 1 answers each one at once.
PipelineSchedule locking_up() {
  PipelineSchedule schedule = make_pipeline_schedule({PipelineKind::gpipe, 2, 4});
  schedule.actions[1] = {};
  for (int i = 0; i < 4; ++i) {
    schedule.actions[1].push_back({ActionKind::receive_activation, i, 1, 0});
    schedule.actions[1].push_back({ActionKind::forward, i, 1});
    schedule.actions[1].push_back({ActionKind::backward, i, 1});
    schedule.actions[1].push_back({ActionKind::send_gradient, i, 1, 0});
  }
  return schedule;
}

TEST(PipelineSimulation, ADeadlockIsReportedWithItsCycle) {
  const PipelineSchedule schedule = locking_up();
  const PipelineCosts costs = PipelineCosts::even(schedule.shape, {});
  expect_error(Code::invalid_argument,
               {"gpipe, 2 ranks x 1 chunks, 4 micro-batches locks up with 1 buffered message",
                "rank 0 waits for rank 1 in action 7: send of the activation of micro-batch 3 of "
                "stage 0 to rank 1",
                "rank 1 waits for rank 0 in action 7: send of the gradient of micro-batch 1 of "
                "stage 1 to rank 0"},
               [&] { return simulate(schedule, costs); });
  EXPECT_EQ(simulate(schedule, costs, 2).makespan(), Rational(15));
}

TEST(PipelineSimulation, OnlyTheCycleIsReported) {
  // Ranks 1 and 2 wait for each other, rank 0 only waits for rank 1.
  PipelineSchedule schedule = make_pipeline_schedule({PipelineKind::gpipe, 3, 1});
  auto& middle = schedule.actions[1];
  const auto gradient = std::find_if(
      middle.begin(), middle.end(),
      [](const PipelineAction& action) { return action.kind == ActionKind::receive_gradient; });
  std::rotate(middle.begin(), gradient, gradient + 1);
  try {
    simulate(schedule, PipelineCosts::even(schedule.shape, {}));
    FAIL() << "it cannot run";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.find("rank 0 waits"), std::string::npos) << text;
    EXPECT_NE(text.find("rank 1 waits for rank 2 in action 0"), std::string::npos) << text;
    EXPECT_NE(text.find("rank 2 waits for rank 1 in action 0"), std::string::npos) << text;
  }
}

TEST(PipelineSimulation, RefusesImpossibleCosts) {
  const PipelineSchedule schedule = make_pipeline_schedule({k1F1B, 2, 2});
  expect_error(Code::invalid_argument, {"-1", "negative"}, [&] {
    return simulate(schedule, PipelineCosts::even(schedule.shape, {1, 1, -1}));
  });
  expect_error(Code::invalid_argument, {"costs of 1 stages", "2 stages"}, [&] {
    return simulate(schedule, {{{1, 1, 1}}, 0});
  });
  expect_error(Code::invalid_argument, {"buffer of 0"},
               [&] { return simulate(schedule, PipelineCosts::even(schedule.shape, {}), 0); });
  expect_error(Code::invalid_argument, {"64 bits"}, [&] {
    return simulate(schedule, {{{{1, 1000000007}, 1, 1}, {{1, 998244353}, {1, 1000000009}, 1}}, 0});
  });
}

}  // namespace
}  // namespace tessera::parallel
