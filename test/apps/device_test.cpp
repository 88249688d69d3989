// SPDX-License-Identifier: Apache-2.0
// `device` of a run file and --device of the subcommands, with a GPU and without.
#include <cmath>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/device/cuda.hpp"

#include "support/cuda_testing.hpp"
#include "support/program.hpp"
#include "support/tiny_run.hpp"

namespace tessera::test {
namespace {

class DeviceTest : public ::testing::Test {
 protected:
  DeviceTest() { setenv("TESSERA_CACHE", (folder / "cache").c_str(), 1); }

  std::string train(const std::string& run, const std::string& device, int steps, int ranks) {
    const Outcome outcome =
        tessera(fmt::format("train {} --set device={} --steps {}", run, device, steps), ranks);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.error;
    return outcome.out;
  }
  std::vector<double> losses(const std::string& name) const {
    std::vector<double> values;
    for (const auto& line : read_json_lines(folder / (name + "/metrics.jsonl")))
      if (line.contains("loss")) values.push_back(line["loss"]);
    return values;
  }

  TemporaryFolder folder;
};

TEST_F(DeviceTest, ThatIsNotThereIsRefusedOnceWithTheReason) {
  if (cuda_device_count() > 0) GTEST_SKIP() << "there is a GPU";
  for (const int ranks : {1, 2}) {
    const Outcome outcome = tessera("train " + tiny_run(folder, "a") + " --set device=cuda", ranks);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.error;
    for (const std::string& part : {std::string("device: cuda"), cuda_unavailable_reason()}) {
      const std::size_t found = outcome.error.find(part);
      ASSERT_NE(found, std::string::npos) << part << " is not in: " << outcome.error;
      EXPECT_EQ(outcome.error.find(part, found + 1), std::string::npos) << outcome.error;
    }
  }
  EXPECT_NE(train(tiny_run(folder, "b"), "auto", 1, 1).find("device cpu"), std::string::npos);
}

TEST_F(DeviceTest, MayChangeBetweenThePartsOfARun) {
  TESSERA_NEEDS_GPU();
  const std::string changing = tiny_run(folder, "changing"), cpu = tiny_run(folder, "cpu");
  EXPECT_NE(train(changing, "auto", 2, 2).find("device cuda:0"), std::string::npos);
  EXPECT_NE(train(changing, "cpu", 4, 1).find("device cpu"), std::string::npos);
  EXPECT_NE(train(changing, "cuda", 6, 1).find("device cuda:0"), std::string::npos);
  train(cpu, "cpu", 6, 2);
  const auto found = losses("changing"), expected = losses("cpu");
  ASSERT_EQ(found.size(), 6u);
  ASSERT_EQ(expected.size(), 6u);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(found[i], expected[i], 2e-2) << i;
  const auto summary = read_json(folder / "changing/summary.json");
  EXPECT_TRUE(summary["device"].get<std::string>().starts_with("cuda:0"));
  EXPECT_EQ(summary["device_transport"], "self");
  EXPECT_GT(summary["memory"]["optimizer"].get<std::int64_t>(), 0);
}

/// "1 2 3 v3 …": the steps of losses and validations.
std::string lines_of(const std::vector<nlohmann::json>& metrics) {
  std::string text;
  for (const auto& line : metrics)
    text += fmt::format("{}{} ", line.contains("loss") ? "" : "v", line["step"].get<int>());
  return text;
}

// Outcomes come one step late, but not where something waits for them.
TEST_F(DeviceTest, WritesEachStepInItsPlace) {
  TESSERA_NEEDS_GPU();
  const std::string whole = tiny_run(folder, "whole"), parts = tiny_run(folder, "parts");
  train(whole, "cuda", 6, 1);
  for (const int steps : {2, 3, 6}) train(parts, "cuda", steps, 1);
  for (const char* name : {"whole", "parts"}) {
    const auto metrics = read_json_lines(folder / (std::string(name) + "/metrics.jsonl"));
    EXPECT_EQ(lines_of(metrics), "1 2 3 v3 4 5 6 v6 ");
    for (const auto& line : metrics)
      if (line.contains("loss")) {
        EXPECT_GT(line["seconds"].get<double>(), 0);
        EXPECT_GT(line["grad_norm"].get<double>(), 0);
        EXPECT_FALSE(line["skipped"].get<bool>());
      }
  }
  EXPECT_EQ(losses("parts"), losses("whole"));
}

TEST_F(DeviceTest, WritesTheSameText) {
  TESSERA_NEEDS_GPU();
  train(tiny_run(folder, "a"), "cpu", 6, 1);
  const auto text = [&](const char* device) {
    return tessera(fmt::format("generate --model {} --prompt the --max-tokens 8 --temperature 0 "
                               "--device {}",
                               folder / "a", device))
        .out;
  };
  EXPECT_EQ(text("cuda"), text("cpu"));
  EXPECT_TRUE(text("cpu").starts_with("the"));
}

}  // namespace
}  // namespace tessera::test
