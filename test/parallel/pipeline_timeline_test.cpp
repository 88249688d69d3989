// SPDX-License-Identifier: Apache-2.0
// Pictures of pipelines, and that doc/pipeline-schedules.md shows those of today.
#include "tessera/parallel/pipeline_timeline.hpp"

#include <gtest/gtest.h>

#include "tessera/base/file.hpp"

#include "parallel/pipeline_testing.hpp"
#include "support/expect_error.hpp"

namespace tessera::parallel {
namespace {

using test::Pipeline;
using test::run;
using test::run_in_steps;

std::string draw(const Pipeline& run) {
  return draw_timeline(run.schedule, run.simulation);
}

TEST(PipelineTimeline, ShowsWorkAndIdleTime) {
  EXPECT_EQ(draw(run_in_steps(PipelineKind::one_forward_one_backward, 2, 2)),
            "rank 0 F0 F1 .  .  B0--- .  B1---\n"
            "rank 1 .  F0 B0--- F1 B1--- .  .\n");
}

TEST(PipelineTimeline, TellsChunksApart) {
  EXPECT_EQ(draw(run_in_steps(PipelineKind::zb_v, 1, 1)), "rank 0 F0 f0 b0 w0 B0 W0\n");
  EXPECT_EQ(draw(run_in_steps(PipelineKind::interleaved, 1, 1, 3)),
            "rank 0 F0a F0b F0c B0c---- B0b---- B0a----\n");
}

TEST(PipelineTimeline, ColumnsAreTheLargestCommonStep) {
  EXPECT_EQ(draw(run(PipelineKind::gpipe, 1, 1, 0, {{2, 3}, {1, 3}, {1, 3}})), "rank 0 F0 B0\n");
  EXPECT_EQ(draw(run(PipelineKind::gpipe, 1, 11, 0, {3, 1, 1})).substr(0, 31),
            "rank 0 F0--------- F1--------- ");
}

TEST(PipelineTimeline, RefusesEndlessRows) {
  const Pipeline made = run(PipelineKind::gpipe, 1, 1, 0, {1000000, 1, 0});
  tessera::test::expect_error(Code::invalid_argument, {"1000001 columns"},
                              [&] { return draw(made); });
}

TEST(PipelineTimeline, ThePageShowsWhatIsMadeToday) {
  const std::string page = read_text(TESSERA_DOC "/pipeline-schedules.md");
  for (const PipelineKind kind : pipeline_kinds()) {
    const std::string figure = draw(run_in_steps(kind, 3, 6));
    const std::string block = "```text\n" + figure + "```\n";
    EXPECT_NE(page.find(block), std::string::npos)
        << "the figure of " << to_string(kind) << " should be\n"
        << block;
  }
}

}  // namespace
}  // namespace tessera::parallel
