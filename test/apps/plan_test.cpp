// SPDX-License-Identifier: Apache-2.0
// tessera plan and the calibration that it reads, as a user runs them.
#include <algorithm>

#include <gtest/gtest.h>

#include "support/program.hpp"

namespace tessera::test {
namespace {

class PlanTest : public ::testing::Test {
 protected:
  std::string run_file() const {
    return folder.file("run.yaml", R"(
model: {model_type: gpt2, n_layer: 24, n_embd: 2048, n_head: 16, n_positions: 1024, vocab_size: 50304}
data: {train: ["none.txt"], tokenizer: bytes, sequence_length: 1024}
run: {folder: none, steps: 10}
engine: {train_batch_size: 256, bf16: {enabled: true}, optimizer: {type: AdamW, params: {lr: 1e-4}}}
)");
  }

  nlohmann::json plans(const std::string& options) const {
    const Outcome outcome = tessera("plan " + run_file() + " --json " + options);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.error;
    return nlohmann::json::parse(outcome.out);
  }

  void expect_refused(const std::string& options, const std::string& words) const {
    const Outcome outcome = tessera("plan " + run_file() + " " + options);
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_NE(outcome.error.find(words), std::string::npos) << outcome.error;
  }

  TemporaryFolder folder;
};

TEST_F(PlanTest, FastestPlansComeFirstAndFit) {
  const auto found = plans("--ranks 16 --memory 40GB --top 3");
  ASSERT_EQ(found.size(), 3u);
  double before = 0;
  for (const auto& plan : found) {
    EXPECT_LE(plan["memory_bytes"], 40'000'000'000);
    EXPECT_EQ(plan["micro_batch"].get<int>() * plan["accumulation"].get<int>() *
                  plan["mesh"]["data"].get<int>(),
              256);
    EXPECT_GE(plan["seconds"]["total"], before);
    before = plan["seconds"]["total"];
  }
}

TEST_F(PlanTest, SeveralRankCountsAreCompared) {
  const auto found = plans("--ranks 16,128,16384 --batch 16384");
  ASSERT_EQ(found.size(), 3u);
  EXPECT_LT(found[0]["tokens_per_second"], found[1]["tokens_per_second"]);
  EXPECT_LT(found[1]["tokens_per_second"], found[2]["tokens_per_second"]);
}

TEST_F(PlanTest, AMeshInTheRunFileIsNoBound) {
  const std::string mesh = " --memory 40GB --set mesh.tensor=4 --set mesh.pipeline=2";
  EXPECT_EQ(plans("--ranks 6" + mesh), plans("--ranks 6 --memory 40GB"));
  EXPECT_EQ(plans(mesh), plans("--ranks 8 --memory 40GB"));
  // Two data ranks of eight each work on a micro-batch.
  const std::string micro =
      " --set engine.train_batch_size=null "
      "--set engine.train_micro_batch_size_per_gpu=16";
  EXPECT_EQ(plans("--ranks 16" + mesh + micro), plans("--ranks 16 --memory 40GB --batch 32"));
}

TEST_F(PlanTest, TheProposedLinesAreAcceptedByTheReader) {
  const Outcome plan = tessera("plan " + run_file() + " --ranks 8");
  ASSERT_EQ(plan.exit_code, 0) << plan.error;
  const std::size_t begin = plan.out.find("mesh: {");
  ASSERT_NE(begin, std::string::npos) << plan.out;
  std::string set;
  for (const std::string key : {"pipeline", "sequence", "tensor"}) {
    const std::size_t at = plan.out.find(key + ": ", begin) + key.size() + 2;
    set += " --set mesh." + key + "=" + plan.out.substr(at, plan.out.find_first_of(",}", at) - at);
  }
  const Outcome config = tessera("config " + run_file() + " --ranks 8" + set);
  EXPECT_EQ(config.exit_code, 0) << config.error;
}

TEST_F(PlanTest, TokenShardsAreProposedAsLines) {
  const std::string options = " --ranks 8 --memory 3.5GB --top 1";
  const auto found = plans(options);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_TRUE(found[0]["sequence_parallel"]) << found[0];
  const Outcome plan = tessera("plan " + run_file() + options);
  EXPECT_NE(plan.out.find(", sequence_parallel: true}"), std::string::npos) << plan.out;
  EXPECT_NE(plan.out.find("* with mesh.sequence_parallel"), std::string::npos) << plan.out;
}

TEST_F(PlanTest, ACalibratedMachineIsPlannedFor) {
  const std::string file = folder / "machine.json";
  const Outcome outcome = tessera("env --calibrate " + file, 2);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.error;
  EXPECT_NE(outcome.out.find("plan RUN.yaml --machine"), std::string::npos) << outcome.out;
  EXPECT_EQ(read_json(file)["ranks_per_node"], 2);
  const auto found = plans("--ranks 6 --memory 1TB --batch 64 --top 20 --machine " + file);
  EXPECT_GT(found[0]["tokens_per_second"], 0);
  const bool pipelined = std::any_of(found.begin(), found.end(), [](const auto& plan) {
    return plan["mesh"]["pipeline"] > 1 && plan["bubble"] > 0;
  });
  EXPECT_TRUE(pipelined);
}

TEST_F(PlanTest, BadInputIsNamed) {
  expect_refused("--ranks 2 --memory 1GB", "no way of dividing this model over 2 ranks fits");
  expect_refused("--ranks 2 --machine b300", "no machine or file 'b300'");
  expect_refused("--ranks 8 --memory lots", "lots");
  expect_refused("--ranks 0", "--ranks");
}

}  // namespace
}  // namespace tessera::test
