// SPDX-License-Identifier: Apache-2.0
// The lists of actions: known orders, what every schedule keeps, and what the check finds.
#include "tessera/parallel/pipeline_schedule.hpp"

#include <algorithm>
#include <map>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect_error.hpp"

namespace tessera::parallel {
namespace {

using tessera::test::expect_error;

// "0F0 1F0 1I0 …": stage, F forward, B backward, I or W its parts, micro-batch.
std::string order_of(const PipelineSchedule& schedule, int rank) {
  std::string text;
  for (const PipelineAction& action : schedule.actions[static_cast<std::size_t>(rank)])
    if (action.computes())
      text += fmt::format("{}{}{} ", action.stage, "FBIW"[static_cast<int>(action.kind)],
                          action.micro_batch);
  return text;
}

// Visits schedules of all kinds, with more, as many and fewer micro-batches than ranks.
template <typename Visit>
void for_many(Visit visit) {
  for (const PipelineKind kind : pipeline_kinds())
    for (const int chunks :
         kind == PipelineKind::interleaved ? std::vector{2, 3, 4, 7} : std::vector{0})
      for (const int ranks : {1, 2, 3, 4, 5, 6, 8, 13})
        for (const int micro_batches : {1, 2, 3, 4, 5, 7, 8, 12, 13, 16, 27, 40})
          visit(make_pipeline_schedule({kind, ranks, micro_batches, chunks}));
}

TEST(PipelineSchedule, KnownOrders) {
  const auto order = [](PipelineKind kind, int ranks, int micro_batches, int rank, int chunks = 0) {
    return order_of(make_pipeline_schedule({kind, ranks, micro_batches, chunks}), rank);
  };
  EXPECT_EQ(order(PipelineKind::gpipe, 3, 3, 1), "1F0 1F1 1F2 1B0 1B1 1B2 ");
  EXPECT_EQ(order(PipelineKind::one_forward_one_backward, 3, 4, 0),
            "0F0 0F1 0F2 0B0 0F3 0B1 0B2 0B3 ");
  EXPECT_EQ(order(PipelineKind::interleaved, 2, 4, 0),
            "0F0 0F1 2F0 2F1 0F2 2B0 0F3 2B1 2F2 0B0 2F3 0B1 2B2 2B3 0B2 0B3 ");
  EXPECT_EQ(order(PipelineKind::interleaved, 2, 5, 0),  // groups of three and two
            "0F0 0F1 0F2 2F0 2F1 2F2 2B0 0F3 2B1 0F4 2B2 2F3 0B0 2F4 0B1 0B2 2B3 2B4 0B3 0B4 ");
  EXPECT_EQ(order(PipelineKind::zero_bubble, 4, 6, 3),
            "3F0 3I0 3F1 3I1 3F2 3I2 3F3 3I3 3W0 3F4 3I4 3W1 3F5 3I5 3W2 3W3 3W4 3W5 ");
  EXPECT_EQ(order(PipelineKind::zb_v, 2, 4, 0),
            "0F0 0F1 0F2 3F0 3I0 3W0 3F1 3I1 3W1 0F3 0I0 0W0 3F2 3I2 3W2 0I1 0W1 3F3 3I3 3W3 "
            "0I2 0W2 0I3 0W3 ");
}

TEST(PipelineSchedule, StagesOfRanks) {
  const PipelineShape looped = PipelineShape{PipelineKind::interleaved, 4, 8, 3}.resolved();
  EXPECT_EQ(looped.stages(), 12);
  EXPECT_EQ(looped.stage_of(1, 2), 9);
  const PipelineShape folded = PipelineShape{PipelineKind::zb_v, 4, 8}.resolved();
  EXPECT_EQ(folded.stage_of(1, 0), 1);
  EXPECT_EQ(folded.stage_of(1, 1), 6);
  for (const PipelineShape& shape : {looped, folded})
    for (int rank = 0; rank < shape.ranks; ++rank)
      for (int chunk = 0; chunk < shape.chunks; ++chunk) {
        EXPECT_EQ(shape.rank_of(shape.stage_of(rank, chunk)), rank);
        EXPECT_EQ(shape.chunk_of(shape.stage_of(rank, chunk)), chunk);
      }
}

TEST(PipelineSchedule, EveryScheduleIsCompleteAndMatched) {
  for_many([](const PipelineSchedule& schedule) {
    EXPECT_NO_THROW(check_pipeline_schedule(schedule));
    const PipelineShape& shape = schedule.shape;
    std::map<ActionKind, int> count;
    for (const auto& list : schedule.actions)
      for (const PipelineAction& action : list) ++count[action.kind];
    const int all = shape.stages() * shape.micro_batches;
    EXPECT_EQ(count[ActionKind::forward], all);
    EXPECT_EQ(count[ActionKind::backward], shape.splits_backward() ? 0 : all);
    EXPECT_EQ(count[ActionKind::backward_input], shape.splits_backward() ? all : 0);
    EXPECT_EQ(count[ActionKind::backward_weight], shape.splits_backward() ? all : 0);

    // A boundary between stages is crossed once each way, unless both stages are one rank's.
    int crossings = 0;
    for (int stage = 1; stage < shape.stages(); ++stage)
      crossings += shape.rank_of(stage) != shape.rank_of(stage - 1) ? shape.micro_batches : 0;
    for (const ActionKind kind : {ActionKind::send_activation, ActionKind::receive_activation,
                                  ActionKind::send_gradient, ActionKind::receive_gradient})
      EXPECT_EQ(count[kind], crossings) << shape.to_string();
  });
}

TEST(PipelineSchedule, StagesTakeMicroBatchesInAscendingOrder) {
  for_many([](const PipelineSchedule& schedule) {
    for (const auto& list : schedule.actions) {
      std::map<std::pair<ActionKind, int>, int> next;
      for (const PipelineAction& action : list)
        ASSERT_EQ(action.micro_batch, (next[{action.kind, action.stage}]++))
            << schedule.shape.to_string() << ": " << action.to_string();
    }
  });
}

TEST(PipelineSchedule, NamesGoBothWays) {
  for (const PipelineKind kind : pipeline_kinds()) EXPECT_EQ(pipeline_kind(to_string(kind)), kind);
  expect_error(Code::invalid_argument,
               {"'zero-buble'", "gpipe, 1f1b, interleaved-1f1b, zero-bubble, zb-v",
                "did you mean 'zero-bubble'?"},
               [] { return pipeline_kind("zero-buble"); });
}

TEST(PipelineSchedule, ConditionsNameTheNumbersAndTheRule) {
  const auto refused = [](PipelineShape shape, std::initializer_list<std::string_view> parts) {
    expect_error(Code::invalid_argument, parts, [&] { return make_pipeline_schedule(shape); });
  };
  refused({PipelineKind::gpipe, 0, 4}, {"0 ranks", "at least 1"});
  refused({PipelineKind::gpipe, 4, 0}, {"4 ranks", "0 micro-batches", "at least 1"});
  refused({PipelineKind::one_forward_one_backward, 4, 8, 2},
          {"1f1b has one chunk a rank, not 2", "interleaved-1f1b"});
  refused({PipelineKind::zero_bubble, 4, 8, 3}, {"zero-bubble has one chunk a rank, not 3"});
  refused({PipelineKind::interleaved, 4, 8, 1}, {"two or more chunks a rank, not 1", "1f1b"});
  refused({PipelineKind::zb_v, 4, 8, 3}, {"zb-v has two chunks a rank, not 3"});
  refused({PipelineKind::gpipe, 4, 8, -1}, {"not -1"});
  refused({PipelineKind::interleaved, 1 << 30, 1 << 30, 1 << 30}, {"1073741824 ranks", "at most"});
}

// A schedule of two ranks, changed by hand.
class Damaged : public ::testing::Test {
 protected:
  void expect_refused(std::initializer_list<std::string_view> parts) {
    expect_error(Code::invalid_argument, parts, [&] { check_pipeline_schedule(schedule_); });
  }
  std::vector<PipelineAction>& list(int rank) {
    return schedule_.actions[static_cast<std::size_t>(rank)];
  }
  auto place(int rank, ActionKind kind, int micro_batch) {
    return std::find_if(list(rank).begin(), list(rank).end(), [&](const PipelineAction& action) {
      return action.kind == kind && action.micro_batch == micro_batch;
    });
  }
  void move_to_front(int rank, ActionKind kind, int micro_batch) {
    const auto found = place(rank, kind, micro_batch);
    std::rotate(list(rank).begin(), found, found + 1);
  }

  PipelineSchedule schedule_ = make_pipeline_schedule({PipelineKind::zero_bubble, 2, 4});
};

TEST_F(Damaged, AnActionTwice) {
  list(0).push_back(list(0).front());
  expect_refused({"rank 0", "forward of micro-batch 0 in stage 0", "twice"});
}

TEST_F(Damaged, ALostAction) {
  list(1).erase(place(1, ActionKind::backward_weight, 3));
  expect_refused({"micro-batch 3 is not finished in stage 1"});
}

TEST_F(Damaged, ALostMessage) {
  list(0).erase(place(0, ActionKind::send_activation, 3));
  expect_refused({"message 3 from rank 0 to rank 1", "sent for nothing",
                  "receive of the activation of micro-batch 3 for stage 1 from rank 0"});
}

TEST_F(Damaged, MessagesInAnotherOrder) {
  std::swap(*place(1, ActionKind::receive_activation, 0),
            *place(1, ActionKind::receive_activation, 1));
  move_to_front(1, ActionKind::receive_activation, 0);
  std::swap(list(1)[0], list(1)[1]);
  expect_refused({"message 0 from rank 0 to rank 1", "micro-batch 0", "micro-batch 1"});
}

TEST_F(Damaged, ActionsBeforeWhatTheyNeed) {
  const PipelineSchedule whole = schedule_;
  const auto refused = [&](int rank, ActionKind kind, std::string_view problem) {
    schedule_ = whole;
    move_to_front(rank, kind, 1);
    expect_refused({fmt::format("rank {}, action 0", rank), "micro-batch 1", problem});
  };
  refused(1, ActionKind::forward, "what it needs is received later");
  refused(1, ActionKind::backward_input, "its forward comes later");
  refused(1, ActionKind::backward_weight, "its input gradient comes later");
  refused(0, ActionKind::send_activation, "it is made later");
  refused(1, ActionKind::send_gradient, "it is made later");
}

TEST_F(Damaged, AStageOfTheSameRankTooEarly) {
  schedule_ = make_pipeline_schedule({PipelineKind::zb_v, 1, 1});
  std::swap(list(0)[0], list(0)[1]);
  expect_refused({"forward of micro-batch 0 in stage 1", "other stage comes later"});
}

TEST_F(Damaged, TheWrongRank) {
  const PipelineSchedule whole = schedule_;
  std::swap(list(0), list(1));
  expect_refused({"rank 0, action 0", "another rank's"});
  schedule_ = whole;
  place(0, ActionKind::send_activation, 0)->peer = 0;
  expect_refused({"send of the activation", "the other stage is not that rank's"});
  schedule_ = whole;
  list(0).push_back({ActionKind::receive_activation, 0, 0, -1});
  expect_refused({"for stage 0 from rank -1", "no rank is there"});
  schedule_ = whole;
  list(0).front().micro_batch = 4;
  expect_refused({"no such stage or micro-batch"});
  schedule_ = whole;
  schedule_.actions.pop_back();
  expect_refused({"1 lists of actions"});
}

}  // namespace
}  // namespace tessera::parallel
