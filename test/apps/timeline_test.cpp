// SPDX-License-Identifier: Apache-2.0
// run.timeline as a user runs it: a file that other programs open, and a run that it does not
// change.
#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "support/markup.hpp"
#include "support/tiny_run.hpp"

namespace tessera::test {
namespace {

using Json = nlohmann::json;

struct Slice {
  std::string name, kind;
  double begin, end;
  Json details;
};

// Complete events by rank and lane, in the order of the file.
std::map<std::pair<int, int>, std::vector<Slice>> lanes_of(const Json& file) {
  std::map<std::pair<int, int>, std::vector<Slice>> lanes;
  for (const Json& event : file["traceEvents"])
    if (event["ph"] == "X")
      lanes[{event["pid"], event["tid"]}].push_back(
          {event["name"], event["cat"], event["ts"],
           event["ts"].get<double>() + event["dur"].get<double>(), event["args"]});
  return lanes;
}

// Each span lies inside the one that is open when it begins, or after it.
void expect_nested(const std::vector<Slice>& lane) {
  constexpr double kRounding = 1e-3;  // microseconds
  std::vector<Slice> open;
  for (const Slice& slice : lane) {
    EXPECT_LE(slice.begin, slice.end) << slice.name;
    while (!open.empty() && open.back().end <= slice.begin + kRounding) open.pop_back();
    if (!open.empty()) {
      EXPECT_GE(slice.begin, open.back().begin) << slice.name << " in " << open.back().name;
      EXPECT_LE(slice.end, open.back().end + kRounding) << slice.name << " in " << open.back().name;
    }
    open.push_back(slice);
  }
}

int spans_of(const std::vector<Slice>& lane, const std::string& kind) {
  return static_cast<int>(
      std::ranges::count_if(lane, [&](const Slice& slice) { return slice.kind == kind; }));
}

class TimelineTest : public ::testing::Test {
 protected:
  TimelineTest() { setenv("TESSERA_CACHE", (folder / "cache").c_str(), 1); }
  Outcome train(const std::string& name, const std::string& settings, int ranks = 2) {
    const Outcome outcome = tessera("train " + tiny_run(folder, name) + settings, ranks);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.error;
    return outcome;
  }
  Json timeline(const std::string& name) { return read_json(folder / (name + "/timeline.json")); }

  TemporaryFolder folder;
  // Two stages, four micro-batches.
  const std::string piped =
      " --set mesh.pipeline=2 --set engine.train_micro_batch_size_per_gpu=2 "
      "--set engine.zero_optimization.stage=1";
};

TEST_F(TimelineTest, OfAPipelineHasEveryActionOfEveryRank) {
  const Outcome outcome = train("a", piped + " --set 'run.timeline=steps 3-5'");
  EXPECT_NE(outcome.out.find("timeline.json: steps 3 to 5, clocks aligned to"), std::string::npos)
      << outcome.out;
  const Json file = timeline("a");
  const Json& facts = file["otherData"];
  EXPECT_EQ(facts["steps"], (Json{3, 5}));
  EXPECT_EQ(facts["pipeline"],
            (Json{{"schedule", "1f1b"}, {"ranks", 2}, {"chunks", 1}, {"micro_batches", 4}}));
  EXPECT_EQ(facts["pipelines"], (Json{{0, 1}}));
  const auto lanes = lanes_of(file);
  ASSERT_EQ(lanes.size(), 4u);
  for (const auto& [place, lane] : lanes) expect_nested(lane);
  for (int rank = 0; rank < 2; ++rank) {
    const auto& compute = lanes.at({rank, 0});
    EXPECT_EQ(spans_of(compute, "step"), 3);
    EXPECT_EQ(spans_of(compute, "input"), 3);
    // Step 3 validates, too: its forward is not a span of training.
    EXPECT_EQ(spans_of(compute, "validation"), 1);
    EXPECT_EQ(spans_of(compute, "checkpoint"), 1);
    EXPECT_EQ(spans_of(compute, "optimizer"), 6);
    EXPECT_EQ(spans_of(compute, "forward"), 12);
    EXPECT_EQ(spans_of(compute, "backward"), 12);
    std::set<int> micro_batches;
    for (const Slice& slice : compute)
      if (slice.kind == "forward") {
        EXPECT_EQ(slice.details["stage"], rank);
        micro_batches.insert(slice.details["micro_batch"].get<int>());
      }
    EXPECT_EQ(micro_batches, (std::set<int>{0, 1, 2, 3}));
    const auto& communication = lanes.at({rank, 1});
    EXPECT_GT(spans_of(communication, "communication"), 0);
    for (const Slice& slice : communication)
      EXPECT_TRUE(slice.kind == "communication" || slice.kind == "idle") << slice.kind;
  }
}

// What stage 1 needs leaves stage 0 before, by one clock.
TEST_F(TimelineTest, ShowsRanksByOneClock) {
  train("a", piped + " --set 'run.timeline=step 2'");
  const Json file = timeline("a");
  const double error = file["otherData"]["clock_error_us"];
  std::map<std::pair<int, std::string>, Slice> forwards;
  for (const auto& [place, lane] : lanes_of(file))
    for (const Slice& slice : lane)
      if (slice.kind == "forward") forwards[{place.first, slice.name}] = slice;
  ASSERT_EQ(forwards.size(), 8u);
  for (int j = 0; j < 4; ++j) {
    const std::string name = "forward " + std::to_string(j);
    EXPECT_GE(forwards.at({1, name}).begin + 2 * error, forwards.at({0, name}).end) << name;
  }
}

TEST_F(TimelineTest, NamesCollectivesUnitsAndWhatIsInFlight) {
  train("a", " --set run.timeline=4");
  const Json file = timeline("a");
  std::set<std::string> units, names;
  int flights = 0;
  for (const Json& event : file["traceEvents"]) {
    if (event["name"] == "gather" && event["args"].contains("of"))
      units.insert(event["args"]["of"]);
    if (event["name"] == "all_gather" && event["ph"] == "X") {
      EXPECT_EQ(event["args"]["group"], "data");
      EXPECT_GT(event["args"]["bytes"], 0);
    }
    names.insert(event["name"]);
    flights += event["ph"] == "b" ? 1 : event["ph"] == "e" ? -1 : 0;
  }
  EXPECT_EQ(units, (std::set<std::string>{"embedding", "h.0", "h.1", "final"}));
  for (const char* name : {"all_gather", "reduce_scatter", "reduction", "forward 0", "backward 0"})
    EXPECT_TRUE(names.contains(name)) << name;
  EXPECT_EQ(flights, 0);
}

TEST_F(TimelineTest, IsOnTheRunsPage) {
  train("a", piped + " --set 'run.timeline=steps 3-5'");
  const std::string out = folder / "a.html";
  ASSERT_EQ(tessera("inspect " + (folder / "a") + " --html " + out).exit_code, 0);
  const std::string page = slurp(out);
  EXPECT_EQ(markup_problem(page), "");
  for (const char* part : {"<h2>Timeline</h2>", "class=\"k-forward\"", "class=\"k-backward\"",
                           "Bubble of the pipeline: 1f1b, 2 ranks", "measured", "simulated"})
    EXPECT_NE(page.find(part), std::string::npos) << part;
}

TEST_F(TimelineTest, ChangesNoBitAndNoCount) {
  train("with", piped + " --set 'run.timeline=steps 2-5'");
  train("without", piped);
  const Json with = read_json(folder / "with/summary.json");
  const Json without = read_json(folder / "without/summary.json");
  for (const char* key : {"weights_checksum", "final_loss", "validation_loss", "traffic", "memory"})
    EXPECT_EQ(with[key], without[key]) << key;
  EXPECT_FALSE(std::filesystem::exists(folder / "without/timeline.json"));
}

TEST_F(TimelineTest, OfOneRankHasItsTwoLanes) {
  train("a", " --set 'run.timeline=steps 1-2'", 1);
  const Json file = timeline("a");
  EXPECT_EQ(file["otherData"]["clock_error_us"], 0.0);
  const auto lanes = lanes_of(file);
  expect_nested(lanes.at({0, 0}));
  EXPECT_EQ(spans_of(lanes.at({0, 0}), "step"), 2);
}

TEST_F(TimelineTest, OfStepsThatTheRunHasNotIsAnError) {
  const Outcome outcome =
      tessera("train " + tiny_run(folder, "a") + " --set 'run.timeline=steps 5-7'");
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_NE(outcome.error.find("`run.timeline` is \"steps 5-7\", but the run has 6 steps"),
            std::string::npos)
      << outcome.error;
}

}  // namespace
}  // namespace tessera::test
