// SPDX-License-Identifier: Apache-2.0
// Who speaks, where to, and what the sink receives.
#include "tessera/base/log.hpp"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace tessera {
namespace {

class Log : public ::testing::Test {
 protected:
  void SetUp() override {
    set_log_sink([this](LogLevel, const std::string& line) { lines_.push_back(line); });
  }
  void TearDown() override {
    set_log_sink(nullptr);
    set_log_rank(0, 1);
    set_log_level(LogLevel::info);
  }

  std::vector<std::string> lines_;
};

TEST_F(Log, RankZeroSpeaks) {
  ::testing::internal::CaptureStdout();
  set_log_rank(0, 4);
  log_info("step 1");
  set_log_rank(2, 4);
  log_info("nobody hears this");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "step 1\n");
  EXPECT_EQ(lines_, std::vector<std::string>{"step 1"});
}

TEST_F(Log, WarningsNameTheRankWhereThereAreSeveral) {
  ::testing::internal::CaptureStderr();
  log_warning("low memory");
  set_log_rank(3, 4);
  log_warning("low memory");
  log_error("disk full");
  const std::vector<std::string> expected = {"warning: low memory", "[rank 3] warning: low memory",
                                             "[rank 3] error: disk full"};
  EXPECT_EQ(lines_, expected);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            expected[0] + "\n" + expected[1] + "\n" + expected[2] + "\n");
}

TEST_F(Log, LevelHidesWhatIsBelow) {
  ::testing::internal::CaptureStdout();
  log_debug("hidden");
  set_log_level(LogLevel::debug);
  log_debug("shown");
  set_log_level(LogLevel::error);
  log_info("hidden");
  log_warning("hidden");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "shown\n");
  EXPECT_EQ(lines_, std::vector<std::string>{"shown"});
}

TEST_F(Log, OnceMeansOnceForEachMessage) {
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) log_warning_once("said once");
  log_warning_once("something else");
  ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(lines_, (std::vector<std::string>{"warning: said once", "warning: something else"}));
}

TEST_F(Log, SinkMayLogItself) {
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  set_log_sink([this](LogLevel level, const std::string& line) {
    lines_.push_back(line);
    if (level == LogLevel::info) log_warning("the log file is full");
  });
  log_info("step 1");
  ::testing::internal::GetCapturedStdout();
  ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(lines_, (std::vector<std::string>{"step 1", "warning: the log file is full"}));
}

TEST_F(Log, LinesOfThreadsDoNotMix) {
  ::testing::internal::CaptureStdout();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([] {
      for (int i = 0; i < 50; ++i) log_info("a whole line");
    });
  for (std::thread& thread : threads) thread.join();
  std::string expected;
  for (int i = 0; i < 200; ++i) expected += "a whole line\n";
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), expected);
  EXPECT_EQ(lines_.size(), 200u);
}

}  // namespace
}  // namespace tessera
