// SPDX-License-Identifier: Apache-2.0
// The timeline of the page, of a pipeline whose times are known.
#include "apps/tessera/inspect/timeline_section.hpp"

#include <gtest/gtest.h>

#include "apps/tessera/inspect/pipeline_bubble.hpp"
#include "support/markup.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::app {
namespace {

Json event(int rank, const char* kind, double begin, double end, Json details = Json::object()) {
  return {{"ph", "X"},
          {"pid", rank},
          {"tid", 0},
          {"ts", begin * 1000},
          {"dur", (end - begin) * 1000},
          {"name", kind},
          {"cat", kind},
          {"args", std::move(details)}};
}

Json pass(int rank, const char* kind, double begin, double end, int micro_batch) {
  return event(rank, kind, begin, end, {{"micro_batch", micro_batch}, {"stage", rank}});
}

// 1f1b of two ranks and two micro-batches: a forward takes 1 ms, a backward 2 ms.
Json two_ranks() {
  Json file;
  file["otherData"] = {
      {"ranks", 2},
      {"clock_error_us", 1.5},
      {"pipelines", Json::array({{0, 1}})},
      {"pipeline", {{"schedule", "1f1b"}, {"ranks", 2}, {"chunks", 1}, {"micro_batches", 2}}}};
  file["traceEvents"] = {event(0, "step", 0, 10, {{"step", 3}}),
                         pass(0, "forward", 0, 1, 0),
                         pass(0, "forward", 1, 2, 1),
                         event(0, "communication", 2, 4),
                         event(0, "idle", 2, 3.5),
                         pass(0, "backward", 4, 6, 0),
                         pass(0, "backward", 7, 9, 1),
                         event(0, "optimizer", 9, 10),
                         event(1, "step", 0, 10, {{"step", 3}}),
                         event(1, "idle", 0, 1),
                         pass(1, "forward", 1, 2, 0),
                         pass(1, "backward", 2, 4, 0),
                         pass(1, "forward", 4, 5, 1),
                         pass(1, "backward", 5, 7, 1)};
  return file;
}

class TimelineSection : public ::testing::Test {
 protected:
  std::string write(const Json& file) { return folder.file("timeline.json", file.dump()); }
  test::TemporaryFolder folder;
};

TEST_F(TimelineSection, MeasuresSimulatesAndCalculatesTheSameBubble) {
  const auto bubble = measure_bubble(read_timeline(write(two_ranks())));
  ASSERT_TRUE(bubble.has_value());
  EXPECT_NEAR(bubble->measured, 1.0 / 3, 1e-9);
  EXPECT_NEAR(bubble->simulated, 1.0 / 3, 1e-9);
  ASSERT_TRUE(bubble->closed.has_value());
  EXPECT_NEAR(*bubble->closed, 1.0 / 3, 1e-9);
  EXPECT_NEAR(bubble->seconds, 9e-3, 1e-12);
  EXPECT_NEAR(bubble->simulated_seconds, 9e-3, 1e-12);
}

TEST_F(TimelineSection, CountsWhatIsInnermost) {
  const Timeline timeline = read_timeline(write(two_ranks()));
  std::map<std::string, double> sums;
  double at = 0;
  for (const TimelineSpan& piece : innermost(timeline.ranks[0], 0, 10'000)) {
    EXPECT_NEAR(piece.begin, at, 1e-9);
    sums[piece.kind] += piece.end - piece.begin;
    at = piece.end;
  }
  EXPECT_NEAR(at, 10'000, 1e-9);
  EXPECT_NEAR(sums["forward"], 2000, 1e-9);
  EXPECT_NEAR(sums["backward"], 4000, 1e-9);
  EXPECT_NEAR(sums["idle"], 1500, 1e-9);
  EXPECT_NEAR(sums["communication"], 500, 1e-9);
  EXPECT_NEAR(sums["step"], 1000, 1e-9);
}

TEST_F(TimelineSection, DrawsALaneForEachRankAndTheTables) {
  const std::string section = timeline_section(write(two_ranks()));
  EXPECT_EQ(test::markup_problem(section), "");
  EXPECT_EQ(test::count(section, "<rect class=\"k-forward\""), 4);
  EXPECT_EQ(test::count(section, "<rect class=\"k-backward\""), 4);
  for (const char* part : {">rank 1</text>", "forward 1, stage 0: 1 ms", "33.3 %", "1.5 µs"})
    EXPECT_GT(test::count(section, part), 0) << part;
  EXPECT_EQ(test::count(section, "33.3 %"), 3);
}

TEST_F(TimelineSection, IsMissingOrSaysWhatIsWrong) {
  EXPECT_EQ(timeline_section(folder / "none.json"), "");
  for (const char* text : {"", "{}", R"({"otherData": {"ranks": 1}, "traceEvents": []})",
                           R"({"otherData": {"ranks": 1}, "traceEvents": [{"ph": "X"}]})"}) {
    const std::string section = timeline_section(folder.file("timeline.json", text));
    EXPECT_EQ(test::markup_problem(section), "") << text;
    EXPECT_GT(test::count(section, "class=\"alert\""), 0) << text;
  }
}

}  // namespace
}  // namespace tessera::app
