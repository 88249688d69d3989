// SPDX-License-Identifier: Apache-2.0
// Spans as events that other programs read, and times of several clocks on one.
#include "engine/trace_events.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace tessera::engine {
namespace {

using Json = nlohmann::json;

const ClockMap kSameClock({}, {});

Json parsed(const std::string& lines) {
  std::string list = "[";
  list += lines.substr(0, lines.rfind(','));
  return Json::parse(list += "]");
}

TEST(ClockMap, IsExactWhereClocksWereMeasuredAndALineBetween) {
  // Rank 0's clock is 1000 behind at first, and 1200 behind 100000 later.
  const ClockMap map({-1000, 30, 50'000}, {-1200, 20, 150'000});
  EXPECT_EQ(map(50'000), 49'000);
  EXPECT_EQ(map(150'000), 148'800);
  EXPECT_EQ(map(100'000), 98'900);
  EXPECT_EQ(map.error(), 30);
  for (std::int64_t t = 50'000; t < 50'100; ++t) EXPECT_LE(map(t), map(t + 1));
}

TEST(ClockMap, OfOneMeasurementIsAShift) {
  const ClockMap map({7, 1, 100}, {7, 1, 100});
  EXPECT_EQ(map(1), 8);
}

TEST(TraceEvents, NameTheRankAndItsLanes) {
  const Json events = parsed(trace_events(3, "rank 3 (pipeline 1)", {}, kSameClock, 0));
  EXPECT_EQ(events[0]["name"], "process_name");
  EXPECT_EQ(events[0]["args"]["name"], "rank 3 (pipeline 1)");
  int threads = 0;
  for (const Json& event : events) {
    EXPECT_EQ(event["ph"], "M");
    EXPECT_EQ(event["pid"], 3);
    threads += event["name"] == "thread_name";
  }
  EXPECT_EQ(threads, 2);
}

TEST(TraceEvents, AreCompleteAndInMicrosecondsOfRankZero) {
  const std::vector<Span> spans = {
      {"forward", SpanKind::forward, 1'001'500, 1'003'750, {.micro_batch = 2, .stage = 1}},
      {"wait", SpanKind::idle, 1'002'000, 1'002'001, {.group = "data", .label = "say \"x\" \xff"}}};
  const ClockMap clock({-1'000'000, 0, 0}, {-1'000'000, 0, 0});
  const Json events = parsed(trace_events(0, "rank 0", spans, clock, 500));
  const Json& forward = events[events.size() - 2];
  EXPECT_EQ(forward["ph"], "X");
  EXPECT_EQ(forward["name"], "forward 2");
  EXPECT_EQ(forward["cat"], "forward");
  EXPECT_EQ(forward["tid"], 0);
  EXPECT_EQ(forward["ts"], 1.0);
  EXPECT_EQ(forward["dur"], 2.25);
  EXPECT_EQ(forward["args"], (Json{{"micro_batch", 2}, {"stage", 1}}));
  const Json& wait = events.back();
  EXPECT_EQ(wait["tid"], 1);
  EXPECT_EQ(wait["args"]["group"], "data");
}

TEST(TraceEvents, ShowWhatIsInFlightBesideTheLanes) {
  const std::vector<Span> spans = {
      {"send", SpanKind::in_flight, 1000, 3000, {.peer = 1, .bytes = 8}},
      {"send", SpanKind::in_flight, 2000, 4000, {.peer = 2, .bytes = 8}}};
  const Json events = parsed(trace_events(0, "rank 0", spans, kSameClock, 0));
  ASSERT_GE(events.size(), 4u);
  const auto first = events.size() - 4;
  EXPECT_EQ(events[first]["ph"], "b");
  EXPECT_EQ(events[first + 1]["ph"], "e");
  EXPECT_EQ(events[first]["id2"], events[first + 1]["id2"]);
  EXPECT_NE(events[first]["id2"], events[first + 2]["id2"]);
  EXPECT_EQ(events[first + 1]["ts"], 3.0);
}

}  // namespace
}  // namespace tessera::engine
