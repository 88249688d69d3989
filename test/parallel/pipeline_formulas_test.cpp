// SPDX-License-Identifier: Apache-2.0
// Simulated bubbles and peaks equal the closed formulas exactly, over a grid up to 64 ranks and 512
// micro-batches; and no schedule locks up or loses time by its messages.
#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "parallel/pipeline_testing.hpp"

namespace tessera::parallel {
namespace {

using test::Pipeline;
using test::run;

constexpr auto k1F1B = PipelineKind::one_forward_one_backward;

// With 1 <= F, I, W: equal, and backwards that take more and less than forwards.
const std::vector<StageCosts>& some_costs() {
  static const std::vector<StageCosts> costs = {{1, 1, 1}, {2, 3, 1}, {5, 4, 3}, {1, 1, 4}};
  return costs;
}

// All small pipelines, and a sample of large ones.
template <typename Visit>
void for_grid(Visit visit) {
  for (int ranks = 1; ranks <= 16; ++ranks) {
    for (int micro_batches = 1; micro_batches <= 40; ++micro_batches) visit(ranks, micro_batches);
    for (const int micro_batches : {48, 63, 64, 100, 240, 512}) visit(ranks, micro_batches);
  }
  for (const int ranks : {17, 24, 33, 48, 63, 64})
    for (const int micro_batches : {5, ranks, 2 * ranks, 130, 384, 512})
      visit(ranks, micro_batches);
}

// The bubble of every rank.
void expect_bubble(const Pipeline& made, const Rational& bubble) {
  for (int rank = 0; rank < made.schedule.shape.ranks; ++rank)
    ASSERT_EQ(made.simulation.bubble(rank).to_string(), bubble.to_string())
        << "rank " << rank << " of " << made.text();
}

template <typename Formula>
void expect_peaks(const Pipeline& made, Formula formula) {
  for (int rank = 0; rank < made.schedule.shape.ranks; ++rank)
    ASSERT_EQ(made.simulation.peak_activations(rank), formula(rank))
        << "rank " << rank << " of " << made.text();
}

Rational sum(const StageCosts& costs) {
  return costs.forward + costs.backward_input + costs.backward_weight;
}

// (p - 1) (F + B), a fraction (p - 1) / (m + p - 1), for any m and costs.
void expect_full_bubble(PipelineKind kind, int p, int m) {
  const StageCosts& costs = some_costs()[static_cast<std::size_t>(p + m) % some_costs().size()];
  const Pipeline made = run(kind, p, m, 0, costs);
  expect_bubble(made, sum(costs) * (p - 1));
  ASSERT_EQ(made.simulation.bubble_fraction(), Rational(p - 1, m + p - 1)) << made.text();
  expect_peaks(made, [&](int rank) { return kind == k1F1B ? std::min(p - rank, m) : m; });
}

TEST(PipelineFormulas, GPipe) {
  for_grid([](int p, int m) { expect_full_bubble(PipelineKind::gpipe, p, m); });
}

TEST(PipelineFormulas, OneForwardOneBackward) {
  for_grid([](int p, int m) { expect_full_bubble(k1F1B, p, m); });
}

// (p - 1) (F + B) / v where p divides m and a backward takes at most two forwards.
TEST(PipelineFormulas, Interleaved) {
  const std::vector<StageCosts> costs = {{1, 1, 1}, {2, 1, 2}, {3, 1, 1}};
  for_grid([&](int p, int m) {
    for (const int v : p* m > 5000 ? std::vector{2} : std::vector{2, 3, 5}) {
      const StageCosts& cost = costs[static_cast<std::size_t>(p + m + v) % costs.size()];
      const Pipeline made = run(PipelineKind::interleaved, p, m, v, cost);
      const int groups = std::max(1, m / p);
      const int group = (m + groups - 1) / groups;
      expect_peaks(made, [&](int rank) {
        return std::min(2 * (p - rank - 1) + (v - 1) * group + 1, v * m);
      });
      if (m % p != 0) continue;
      expect_bubble(made, sum(cost) * Rational(p - 1, v));
      ASSERT_EQ(made.simulation.bubble_fraction(), Rational(p - 1, v * m + p - 1)) << made.text();
    }
  });
}

// (p - 1) (F + I - W) where m >= p and W is at most F and I: a third of 1F1B's for equal costs. A
// longer W can fill a gap no better than its length: then max(F, I) stands for F + I - W.
TEST(PipelineFormulas, ZeroBubble) {
  const std::vector<StageCosts> costs = {{1, 1, 1}, {1, 3, 2}, {5, 4, 3}, {2, 1, 3}, {1, 2, 1}};
  for_grid([&](int p, int m) {
    const StageCosts& cost = costs[static_cast<std::size_t>(p + m) % costs.size()];
    const Pipeline made = run(PipelineKind::zero_bubble, p, m, 0, cost);
    expect_peaks(made, [&](int) { return std::min(p, m); });
    if (m < p) return;
    const Rational gap = std::max({cost.forward, cost.backward_input,
                                   cost.forward + cost.backward_input - cost.backward_weight});
    expect_bubble(made, gap * (p - 1));
  });
}

// For equal costs and m >= 2 p - 1 no rank waits once it has begun; rank r begins after r forwards
// of half a rank, so the bubble of the makespan is (p - 1) F / 2.
TEST(PipelineFormulas, ZbV) {
  for_grid([](int p, int m) {
    const Pipeline made = run(PipelineKind::zb_v, p, m);
    for (int rank = 0; rank < p; ++rank)
      ASSERT_LE(made.simulation.peak_activations(rank), 2 * std::min(p, m)) << made.text();
    if (m < 2 * p - 1) return;
    expect_peaks(made, [&](int) { return 2 * p; });
    expect_bubble(made, Rational(p - 1, 2));
    for (int rank = 0; rank < p; ++rank)
      ASSERT_EQ(made.simulation.span(rank), Rational(3 * m)) << made.text();
  });
}

TEST(PipelineFormulas, ZeroBubbleBeats1F1BInTheSameMemory) {
  for_grid([](int p, int m) {
    if (p == 1 || p > 33) return;
    const Pipeline plain = run(k1F1B, p, m);
    const Pipeline split = run(PipelineKind::zero_bubble, p, m);
    ASSERT_LT(split.simulation.bubble(0), plain.simulation.bubble(0)) << split.text();
    if (m >= p) {
      ASSERT_EQ(split.simulation.bubble(0) * 3, plain.simulation.bubble(0)) << split.text();
    }
    for (int rank = 0; rank < p; ++rank)
      ASSERT_LE(split.simulation.peak_activations(rank), plain.simulation.peak_activations(0));
  });
}

// Times by dependencies alone, as if messages cost nothing and buffers had no end.
class Dependencies {
 public:
  explicit Dependencies(const PipelineSchedule& schedule)
      : schedule_(schedule), forward_(table()), backward_(table()) {}

  /// Steps until all is done; 0 if it never is.
  int makespan() {
    const auto ranks = schedule_.actions.size();
    std::vector<std::size_t> next(ranks);
    std::vector<int> clock(ranks);
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t r = 0; r < ranks; ++r)
        for (; next[r] < schedule_.actions[r].size(); ++next[r], moved = true)
          if (!execute(schedule_.actions[r][next[r]], clock[r])) break;
    }
    for (std::size_t r = 0; r < ranks; ++r)
      if (next[r] < schedule_.actions[r].size()) return 0;
    return *std::max_element(clock.begin(), clock.end());
  }

 private:
  using Table = std::vector<std::vector<int>>;  // end by stage and micro-batch, 0: not yet
  Table table() const {
    return Table(static_cast<std::size_t>(schedule_.shape.stages()),
                 std::vector<int>(static_cast<std::size_t>(schedule_.shape.micro_batches)));
  }

  bool execute(const PipelineAction& action, int& clock) {
    const auto stage = static_cast<std::size_t>(action.stage);
    const auto i = static_cast<std::size_t>(action.micro_batch);
    if (action.kind == ActionKind::backward_weight) return ++clock > 0;
    if (!action.computes()) return true;
    const bool forward = action.kind == ActionKind::forward;
    const bool first = forward ? stage == 0 : stage + 1 == forward_.size();
    if (!first) {
      const int ready = forward ? forward_[stage - 1][i] : backward_[stage + 1][i];
      if (ready == 0) return false;
      clock = std::max(clock, ready);
    }
    clock += action.kind == ActionKind::backward ? 2 : 1;
    (forward ? forward_ : backward_)[stage][i] = clock;
    return true;
  }

  const PipelineSchedule& schedule_;
  Table forward_, backward_;
};

TEST(PipelineFormulas, NoScheduleLocksUpOrLosesTimeByItsMessages) {
  for_grid([](int p, int m) {
    if (p * m > 5000) return;
    for (const PipelineKind kind : pipeline_kinds()) {
      const Pipeline made = test::run_in_steps(kind, p, m);
      ASSERT_EQ(made.simulation.makespan(), Rational(Dependencies(made.schedule).makespan()))
          << made.text();
    }
  });
}

}  // namespace
}  // namespace tessera::parallel
