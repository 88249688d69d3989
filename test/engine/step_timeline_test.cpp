// SPDX-License-Identifier: Apache-2.0
// The file of run.timeline: when it is written, by whom, and what happens when it cannot be.
#include "engine/step_timeline.hpp"

#include <filesystem>
#include <set>

#include <gtest/gtest.h>

#include "tessera/base/file.hpp"

#include "support/temporary_folder.hpp"

namespace tessera::engine {
namespace {

using Json = nlohmann::json;

const auto kNoFacts = nlohmann::ordered_json::object();

class StepTimelineTest : public ::testing::Test {
 protected:
  Runtime runtime;
  Communicator& world = runtime.world();
  test::TemporaryFolder folder;
  // Rank 0's.
  std::string file = world.broadcast_text(folder / "timeline.json", 0);

  void run(StepTimeline& timeline, std::int64_t first, std::int64_t last) {
    for (std::int64_t step = first; step <= last; ++step) {
      timeline.before(step);
      {
        const ScopedSpan span(SpanKind::step, "step", [&] { return SpanDetails{.step = step}; });
        world.barrier();
      }
      timeline.after(step, step == last);
    }
  }

  std::set<std::string> steps_of(int rank) {
    const Json file_json = Json::parse(read_text(file));
    std::set<std::string> steps;
    for (const Json& event : file_json["traceEvents"])
      if (event["pid"] == rank && event.value("cat", "") == "step") steps.insert(event["name"]);
    return steps;
  }
};

TEST_F(StepTimelineTest, HoldsItsStepsOfAllRanks) {
  StepTimeline timeline(world, config::StepRange{2, 3}, file, "me", {{"mesh", "flat"}});
  run(timeline, 1, 5);
  if (world.rank() == 0) {
    const Json facts = Json::parse(read_text(file))["otherData"];
    EXPECT_EQ(facts["steps"], (Json{2, 3}));
    EXPECT_EQ(facts["ranks"], world.size());
    EXPECT_EQ(facts["mesh"], "flat");
    EXPECT_EQ(facts["spans_dropped"], 0);
    EXPECT_GE(facts["clock_error_us"], 0.0);
    for (int rank = 0; rank < world.size(); ++rank)
      EXPECT_EQ(steps_of(rank), (std::set<std::string>{"step 2", "step 3"})) << rank;
  }
  EXPECT_FALSE(Timeline::recording());
  world.barrier();
}

TEST_F(StepTimelineTest, IsWrittenWhenTheRunStopsEarlyAndStartsWhereItGoesOn) {
  StepTimeline timeline(world, config::StepRange{2, 9}, file, "me", kNoFacts);
  run(timeline, 4, 5);
  if (world.rank() == 0) {
    EXPECT_EQ(steps_of(0), (std::set<std::string>{"step 4", "step 5"}));
  }
  world.barrier();
}

TEST_F(StepTimelineTest, IsNotThereWithoutItsSteps) {
  StepTimeline none(world, std::nullopt, file, "me", kNoFacts);
  run(none, 1, 2);
  StepTimeline over(world, config::StepRange{1, 2}, file, "me", kNoFacts);
  run(over, 3, 4);
  EXPECT_FALSE(std::filesystem::exists(file));
}

TEST_F(StepTimelineTest, WarnsAndGoesOnWhereItCannotBeWritten) {
  StepTimeline timeline(world, config::StepRange{1, 1}, file + ".missing/timeline.json", "me",
                        kNoFacts);
  run(timeline, 1, 2);
  EXPECT_EQ(world.all_reduce_scalar(std::int64_t{1}, Reduction::sum), world.size());
}

TEST_F(StepTimelineTest, IsNoTraffic) {
  StepTimeline timeline(world, config::StepRange{1, 1}, file, "me", kNoFacts);
  timeline.before(1);
  timeline.after(1, false);
  EXPECT_EQ(world.traffic().counts().size(), 0u);
}

}  // namespace
}  // namespace tessera::engine
