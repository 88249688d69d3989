// SPDX-License-Identifier: Apache-2.0
// Runs whose checkpoints are damaged, cannot be saved, or are saved in the background; and signals.
#include <algorithm>
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/checkpoint/reader.hpp"

#include "support/program.hpp"
#include "support/tiny_run.hpp"

namespace tessera::test {
namespace {

class CheckpointRunTest : public ::testing::Test {
 protected:
  CheckpointRunTest() { setenv("TESSERA_CACHE", (folder / "cache").c_str(), 1); }

  // Trains until something stops it; `run` names run file and folder.
  Outcome train(const std::string& run, const std::string& arguments, int ranks = 2) {
    return tessera(fmt::format("train {} {}", tiny_run(folder, run), arguments), ranks);
  }
  std::string checkpoint(const std::string& run, int step) {
    return folder / fmt::format("{}/checkpoints/step-{:08}.h5", run, step);
  }
  std::vector<std::string> checkpoints(const std::string& run) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder / (run + "/checkpoints")))
      names.push_back(entry.path().filename().string());
    std::ranges::sort(names);
    return names;
  }
  std::vector<nlohmann::json> events(const std::string& run, const std::string& event) {
    std::vector<nlohmann::json> found;
    for (auto& line : read_json_lines(folder / (run + "/events.jsonl"))) {
      EXPECT_TRUE(line.contains("step") && line.contains("time")) << line;
      if (line["event"] == event) found.push_back(line);
    }
    return found;
  }
  nlohmann::json summary(const std::string& run) {
    return read_json(folder / (run + "/summary.json"));
  }
  std::vector<nlohmann::json> losses(const std::string& run) {
    auto lines = read_json_lines(folder / (run + "/metrics.jsonl"));
    for (auto& line : lines)
      for (const char* key : {"seconds", "tokens_per_second"}) line.erase(key);
    return lines;
  }
  // The same metrics and weights as a run that nothing happened to.
  void expect_like_uninterrupted(const std::string& run, const std::string& arguments = "") {
    ASSERT_EQ(train("uninterrupted", arguments).exit_code, 0);
    EXPECT_EQ(losses(run), losses("uninterrupted"));
    EXPECT_EQ(summary(run)["weights_checksum"], summary("uninterrupted")["weights_checksum"]);
  }
  // Changes a bit of a tensor; returns its name.
  std::string flip_byte(const std::string& path) {
    const checkpoint::Reader reader(path);
    const checkpoint::DatasetInfo& info = reader.dataset("parameters/transformer.wpe.weight");
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(info.offset + 5);
    const auto byte = static_cast<char>(file.get() ^ 1);
    file.seekp(info.offset + 5);
    file.put(byte);
    return info.path;
  }

  const std::string every = "--set run.checkpoint.every=1 ";
  TemporaryFolder folder;
};

TEST_F(CheckpointRunTest, ADamagedNewestIsNamedAndTheOneBeforeItUsed) {
  ASSERT_EQ(train("a", every + "--steps 4").exit_code, 0);
  const std::string damaged = checkpoint("a", 4);
  const std::string dataset = flip_byte(damaged);
  const Outcome rest = train("a", every);
  ASSERT_EQ(rest.exit_code, 0) << rest.error;
  for (const std::string& word : {damaged, dataset, std::string("expected")})
    EXPECT_NE(rest.error.find(word), std::string::npos) << word << " is not in: " << rest.error;
  EXPECT_NE(rest.out.find("continuing from " + checkpoint("a", 3)), std::string::npos) << rest.out;
  ASSERT_EQ(events("a", "damaged").size(), 1u);
  EXPECT_EQ(events("a", "damaged")[0]["file"], "step-00000004.h5");
  EXPECT_EQ(events("a", "resume")[0]["from"], checkpoint("a", 3));
  EXPECT_EQ(checkpoints("a"), (std::vector<std::string>{"step-00000005.h5", "step-00000006.h5"}));
  expect_like_uninterrupted("a", every);
}

// As after a kill between the last save and the end.
TEST_F(CheckpointRunTest, AFinishedRunWithoutItsSummaryGetsIt) {
  ASSERT_EQ(train("a", "").exit_code, 0);
  const nlohmann::json before = summary("a");
  const auto metrics = losses("a");
  std::filesystem::remove(folder / "a/summary.json");
  const Outcome again = train("a", "");
  ASSERT_EQ(again.exit_code, 0) << again.error;
  for (const char* key : {"steps", "tokens", "final_loss", "validation_loss", "weights_checksum",
                          "model_flops", "tokens_per_second"})
    EXPECT_EQ(summary("a")[key], before[key]) << key;
  EXPECT_EQ(losses("a"), metrics);
}

TEST_F(CheckpointRunTest, ADamagedOneDoesNotCountAsKept) {
  ASSERT_EQ(train("a", every + "--steps 4").exit_code, 0);
  flip_byte(checkpoint("a", 4));
  // What it continues from, what it saves, and the damaged one, which is replaced in its turn.
  ASSERT_EQ(
      train("a", "--set run.checkpoint.every=4 --set run.checkpoint.keep=2 --steps 4").exit_code,
      0);
  EXPECT_EQ(checkpoints("a"), (std::vector<std::string>{"step-00000003.h5", "step-00000004.h5"}));
  EXPECT_TRUE(checkpoint::Reader(checkpoint("a", 4)).verify().empty());
}

TEST_F(CheckpointRunTest, NothingWholeIsAnErrorAndNothingIsOverwritten) {
  ASSERT_EQ(train("a", "--steps 2").exit_code, 0);
  flip_byte(checkpoint("a", 2));
  const std::string before = slurp(checkpoint("a", 2));
  for (const std::string& resume : {std::string("auto"), checkpoint("a", 2)}) {
    const Outcome outcome = train("a", "--resume " + resume);
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_NE(outcome.error.find("transformer.wpe.weight"), std::string::npos) << outcome.error;
    EXPECT_EQ(slurp(checkpoint("a", 2)), before);
  }
  const Outcome trusting = train("a", "--set run.checkpoint.verify=false");
  EXPECT_EQ(trusting.exit_code, 0) << trusting.error;
  EXPECT_NE(trusting.out.find("continuing from"), std::string::npos);
}

TEST_F(CheckpointRunTest, ResumePathTakesNoOther) {
  ASSERT_EQ(train("a", every + "--steps 3").exit_code, 0);
  flip_byte(checkpoint("a", 3));
  const Outcome outcome = train("a", "--resume " + checkpoint("a", 3));
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_NE(outcome.error.find("damaged"), std::string::npos) << outcome.error;
}

TEST_F(CheckpointRunTest, ResumePathGoesBackInTheSameRun) {
  ASSERT_EQ(train("a", every + "--set run.checkpoint.keep=9 --steps 4").exit_code, 0);
  const std::string second = checkpoint("a", 2);
  ASSERT_EQ(train("a", "--steps 3 --resume " + second).exit_code, 0);
  EXPECT_EQ(checkpoints("a").back(), "step-00000003.h5");
  EXPECT_TRUE(std::filesystem::exists(folder / "a/checkpoints.1/step-00000004.h5"));
  const Outcome rest = train("a", every);
  EXPECT_NE(rest.out.find("continuing from " + checkpoint("a", 3)), std::string::npos) << rest.out;
  expect_like_uninterrupted("a", every);
}

TEST_F(CheckpointRunTest, ResumeNeverMovesCheckpointsAsideToo) {
  ASSERT_EQ(train("a", "--steps 2").exit_code, 0);
  std::filesystem::remove(folder / "a/config.yaml");
  ASSERT_EQ(train("a", "--resume never --steps 1").exit_code, 0);
  EXPECT_EQ(checkpoints("a"), (std::vector<std::string>{"step-00000001.h5"}));
  EXPECT_EQ(checkpoints("a.1"), (std::vector<std::string>{"step-00000002.h5"}));
}

TEST_F(CheckpointRunTest, ASaveThatFailsIsAWarningAndTheNextTriesAgain) {
  setenv("TESSERA_FAULT", "seal:fail:2", 1);
  const Outcome outcome = train("a", every);
  unsetenv("TESSERA_FAULT");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.error;
  EXPECT_NE(outcome.error.find("step 2 could not be saved"), std::string::npos) << outcome.error;
  ASSERT_EQ(events("a", "save_failed").size(), 1u);
  EXPECT_EQ(events("a", "save_failed")[0]["step"], 2);
  EXPECT_EQ(events("a", "save").size(), 5u);
  EXPECT_EQ(summary("a")["checkpoints"]["failed"], 1);
  EXPECT_EQ(summary("a")["checkpoints"]["saves"], 5);
  EXPECT_EQ(checkpoints("a"), (std::vector<std::string>{"step-00000005.h5", "step-00000006.h5"}));
  expect_like_uninterrupted("a", every);
}

TEST_F(CheckpointRunTest, OnErrorStopStops) {
  setenv("TESSERA_FAULT", "seal:fail:2", 1);
  const Outcome outcome = train("a", every + "--set run.checkpoint.on_error=stop");
  unsetenv("TESSERA_FAULT");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_NE(outcome.error.find("on_error"), std::string::npos) << outcome.error;
  EXPECT_EQ(checkpoints("a"), (std::vector<std::string>{"step-00000001.h5"}));
}

TEST_F(CheckpointRunTest, WithoutALastCheckpointTheRunFails) {
  setenv("TESSERA_FAULT", "write:fail", 1);
  const Outcome outcome = train("a", "");
  unsetenv("TESSERA_FAULT");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_NE(outcome.error.find("last checkpoint"), std::string::npos) << outcome.error;
  EXPECT_EQ(events("a", "save_failed").size(), 2u);
  EXPECT_TRUE(checkpoints("a").empty());
}

TEST_F(CheckpointRunTest, SavingInTheBackgroundChangesNothing) {
  const std::string background = every + "--set run.checkpoint.asynchronous=true ";
  ASSERT_EQ(train("a", background).exit_code, 0);
  const auto saves = events("a", "save");
  ASSERT_EQ(saves.size(), 6u);
  for (const auto& save : saves) {
    EXPECT_EQ(save["asynchronous"], save["step"] != 6) << save;
    for (const char* key : {"bytes", "largest_rank_bytes", "largest_rank_writes", "seconds",
                            "seconds_blocked", "bytes_per_second"})
      EXPECT_GT(save[key], 0) << key;
  }
  EXPECT_GT(summary("a")["memory"]["snapshot"], 0);
  EXPECT_EQ(summary("a")["checkpoints"]["saves"], 6);
  expect_like_uninterrupted("a", every);
  EXPECT_EQ(summary("uninterrupted")["memory"]["snapshot"], 0);
  // And what it saved continues as what a plain run saves.
  ASSERT_EQ(train("b", background + "--steps 3").exit_code, 0);
  ASSERT_EQ(train("b", background).exit_code, 0);
  EXPECT_EQ(losses("b"), losses("a"));
  EXPECT_EQ(summary("b")["weights_checksum"], summary("a")["weights_checksum"]);
}

TEST_F(CheckpointRunTest, AFailureInTheBackgroundIsAWarningToo) {
  setenv("TESSERA_FAULT", "flush:fail:1", 1);
  const Outcome outcome = train("a", every + "--set run.checkpoint.asynchronous=true", 1);
  unsetenv("TESSERA_FAULT");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.error;
  EXPECT_NE(outcome.error.find("step 1 could not be saved"), std::string::npos) << outcome.error;
  EXPECT_EQ(events("a", "save_failed")[0]["step"], 1);
  EXPECT_EQ(events("a", "save").size(), 5u);
}

class SignalRunTest : public CheckpointRunTest {
 protected:
  // Starts a long run under mpirun in the background, waits for its first steps, then runs
  // `commands`, in which $pid is mpirun.
  Outcome interrupt(const std::string& commands, const std::string& environment = "") {
    return run_shell(fmt::format(
        "{} '{}' -n 2 '{}' train {} --set run.steps=1000000 --set "
        "engine.scheduler.params.total_num_steps=1000000 --set run.checkpoint.every=0 & pid=$!; "
        "for i in $(seq 300); do grep -q 'step 3' '{}' 2>/dev/null && break; sleep 0.1; done; {}",
        environment, TESSERA_MPIRUN, TESSERA_PROGRAM, tiny_run(folder, "signal"),
        folder / "signal/log.txt", commands));
  }
};

TEST_F(SignalRunTest, ThroughMpirunItSavesAndAsksForARequeue) {
  const Outcome outcome = interrupt("kill -USR1 $pid; wait $pid");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.error;
  EXPECT_TRUE(std::filesystem::exists(folder / "signal/REQUEUE"));
  const int steps = summary("signal")["steps"];
  EXPECT_TRUE(std::filesystem::exists(checkpoint("signal", steps)));
  ASSERT_EQ(events("signal", "stop").size(), 1u);
  EXPECT_EQ(events("signal", "stop")[0]["reason"], "signal");
  EXPECT_EQ(events("signal", "stop")[0]["step"], steps);
}

// The save hangs, so only the second signal can end the run.
TEST_F(SignalRunTest, ASecondSignalFiveSecondsLaterStopsAtOnce) {
  const Outcome outcome = interrupt(
      "kill -USR1 $pid; sleep 1; kill -USR1 $pid; sleep 1; kill -0 $pid || exit 77; sleep 3.5; "
      "kill -USR1 $pid; wait $pid",
      "TESSERA_FAULT=create:pause:60000");
  EXPECT_NE(outcome.exit_code, 0) << outcome.out;
  EXPECT_NE(outcome.exit_code, 77) << "the repeated signal stopped it: " << outcome.error;
  EXPECT_FALSE(std::filesystem::exists(folder / "signal/REQUEUE"));
}

}  // namespace
}  // namespace tessera::test
