// SPDX-License-Identifier: Apache-2.0
// The recorder of spans: what it keeps, in which order, and that it is off.
#include "tessera/base/timeline.hpp"

#include <thread>

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(Timeline, RecordsNothingAndAsksForNothingWhileItIsOff) {
  bool asked = false;
  {
    const ScopedSpan span(SpanKind::forward, "forward", [&] {
      asked = true;
      return SpanDetails{};
    });
  }
  Timeline::add({"late", SpanKind::idle, 1, 2, {}});
  EXPECT_FALSE(asked);
  EXPECT_FALSE(Timeline::recording());
  Timeline::start();
  EXPECT_TRUE(Timeline::stop().spans.empty());
}

TEST(Timeline, KeepsSpansByTheirBeginningOuterOnesFirst) {
  Timeline::start();
  {
    const ScopedSpan outer(SpanKind::forward, "outer",
                           [] { return SpanDetails{.micro_batch = 3, .label = "x"}; });
    const std::int64_t begin = Timeline::now();
    { const ScopedSpan inner(SpanKind::communication, "inner"); }
    Timeline::add({"around", SpanKind::in_flight, begin, Timeline::now(), {}});
  }
  { const ScopedSpan after(SpanKind::backward, "after"); }
  const Timeline::Recording recording = Timeline::stop();
  ASSERT_EQ(recording.spans.size(), 4u);
  const auto& spans = recording.spans;
  EXPECT_STREQ(spans[0].name, "outer");
  EXPECT_STREQ(spans[1].name, "around");
  EXPECT_STREQ(spans[2].name, "inner");
  EXPECT_STREQ(spans[3].name, "after");
  EXPECT_EQ(spans[0].details.micro_batch, 3);
  EXPECT_EQ(spans[0].details.label, "x");
  EXPECT_EQ(spans[2].kind, SpanKind::communication);
  EXPECT_LE(spans[0].begin, spans[1].begin);
  EXPECT_LE(spans[2].end, spans[1].end);
  EXPECT_LE(spans[1].end, spans[0].end);
  EXPECT_LE(spans[0].end, spans[3].begin);
  EXPECT_EQ(recording.dropped, 0);
}

TEST(Timeline, EndsWhatIsOpenWhenItStops) {
  Timeline::start();
  const ScopedSpan span(SpanKind::step, "step");
  const Timeline::Recording recording = Timeline::stop();
  ASSERT_EQ(recording.spans.size(), 1u);
  EXPECT_GE(recording.spans[0].end, recording.spans[0].begin);
}

TEST(Timeline, LeavesOtherThreadsOut) {
  Timeline::start();
  std::thread([] {
    const ScopedSpan span(SpanKind::checkpoint, "elsewhere");
    Timeline::add({"elsewhere", SpanKind::checkpoint, 1, 2, {}});
  }).join();
  EXPECT_TRUE(Timeline::stop().spans.empty());
}

TEST(Timeline, CountsWhatIsTooMuch) {
  Timeline::start();
  for (std::size_t i = 0; i < Timeline::kMostSpans + 2; ++i)
    const ScopedSpan span(SpanKind::forward, "forward");
  Timeline::add({"one more", SpanKind::idle, 1, 2, {}});
  const Timeline::Recording recording = Timeline::stop();
  EXPECT_EQ(recording.spans.size(), Timeline::kMostSpans);
  EXPECT_EQ(recording.dropped, 3);
}

}  // namespace
}  // namespace tessera
