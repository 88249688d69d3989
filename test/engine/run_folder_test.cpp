// SPDX-License-Identifier: Apache-2.0
// The files of a run's folder.
#include "tessera/engine/run_folder.hpp"

#include <gtest/gtest.h>

#include "tessera/base/file.hpp"
#include "tessera/engine/progress.hpp"

#include "engine/metrics_file.hpp"
#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::engine {
namespace {

TEST(RunFolder, TruncatingMetricsDropsLaterStepsAndHalfALine) {
  const test::TemporaryFolder place;
  const RunFolder folder(place / "run");
  folder.create();
  MetricsFile metrics(folder.metrics());
  metrics.add(R"({"step":1,"loss":2.5})");
  metrics.add(R"({"step":2,"loss":2.25})");
  metrics.add(R"({"step":2,"validation_loss":2.0})");
  metrics.add(R"({"step":3,"loss":2.0})");
  write_text(folder.metrics(), read_text(folder.metrics()) + R"({"step":4,"lo)");
  folder.truncate_metrics(2);
  EXPECT_EQ(read_text(folder.metrics()),
            "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":2.25}\n{\"step\":2,\"validation_"
            "loss\":2.0}\n");
}

TEST(RunFolder, AHalfWrittenEventGoes) {
  const test::TemporaryFolder place;
  const RunFolder folder(place / "run");
  folder.create();
  folder.mend_events();
  folder.append_event(R"({"event":"start"})");
  write_text(folder.events(), read_text(folder.events()) + R"({"event":"sa)");
  folder.mend_events();
  folder.append_event(R"({"event":"resume"})");
  EXPECT_EQ(read_text(folder.events()), "{\"event\":\"start\"}\n{\"event\":\"resume\"}\n");
}

TEST(MetricsFile, LinesWaitWhileTheyCannotBeWritten) {
  const test::TemporaryFolder place;
  const std::string path = place / "later/metrics.jsonl";
  MetricsFile metrics(path);
  metrics.add("1");
  metrics.add("2");
  test::expect_error(Code::io, {path, "last 4 bytes"}, [&] { metrics.close(); });
  std::filesystem::create_directory(place / "later");
  metrics.add("3");
  metrics.close();
  EXPECT_EQ(read_text(path), "1\n2\n3\n");
}

// Every write to /dev/full fails as on a full disk.
TEST(MetricsFile, AFullDiskLeavesNoHalfLine) {
  const test::TemporaryFolder place;
  const std::string path = place / "metrics.jsonl";
  std::filesystem::create_symlink("/dev/full", path);
  MetricsFile metrics(path);
  metrics.add("1");
  std::filesystem::remove(path);
  metrics.add("2");
  EXPECT_EQ(read_text(path), "1\n2\n");
}

TEST(RunFolder, RequeueComesAndGoes) {
  const test::TemporaryFolder place;
  const RunFolder folder(place / "run");
  folder.create();
  folder.mark_requeue("because");
  EXPECT_EQ(read_text(folder.requeue()), "because\n");
  folder.clear_requeue();
  folder.clear_requeue();
  EXPECT_FALSE(std::filesystem::exists(folder.requeue()));
}

TEST(RunFolder, AFolderThatCannotBeMadeIsNamed) {
  const test::TemporaryFolder place;
  const std::string file = place.file("plain", "a file, not a folder");
  test::expect_error(Code::io, {file}, [&] { RunFolder(file + "/run").create(); });
}

TEST(Progress, EstimatesTheTimeLeftFromStepsOrTheLimit) {
  StepReport report{10, 1.5, 6e-4, 0.5, 2.0, 12345, 1e9, 1 << 20, false};
  Progress steps(0, 40, 0);
  EXPECT_NE(steps.line(report, 20).find("step 10/40  loss 1.5000"), std::string::npos);
  EXPECT_NE(steps.line(report, 20).find("1:00 left"), std::string::npos);
  Progress limited(0, 40, 50);
  EXPECT_NE(limited.line(report, 20).find("0:30 left"), std::string::npos);
}

}  // namespace
}  // namespace tessera::engine
