// SPDX-License-Identifier: Apache-2.0
// Runs whose disk becomes full or read-only: training goes on as long as it can and nothing that
// was saved is lost.
#include <cstdlib>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/private_disk.hpp"
#include "support/program.hpp"

namespace tessera::test {
namespace {

constexpr std::int64_t kCheckpointBytes = 170'000;  // about

class DiskTest : public ::testing::Test {
 protected:
  DiskTest() : disk_(std::int64_t{64} << 20) {
    setenv("TESSERA_CACHE", (folder_ / "cache").c_str(), 1);
  }

  Outcome train(const std::string& run) {
    const std::string file = folder_ / "run.yaml";
    spit(
        file,
        fmt::format(
            R"(model: {{model_type: gpt2, n_layer: 2, n_embd: 16, n_head: 2, n_positions: 16, vocab_size: auto}}
data: {{train: ["{}"], validation: 0, tokenizer: bytes, sequence_length: 16}}
run: {{folder: "{}", steps: 12, seed: 7, checkpoint: {{every: 4, keep: 2}}}}
engine:
  train_batch_size: 4
  optimizer: {{type: AdamW, params: {{lr: 1e-3}}}}
  zero_optimization: {{stage: 1}}
)",
            TESSERA_TEST_DATA "/text/tinyshakespeare.txt", run));
    return tessera("train " + file, 2);
  }
  std::string weights(const std::string& run) const {
    return read_json(run + "/summary.json")["weights_checksum"];
  }
  static bool says(const Outcome& outcome, const std::string& text) {
    return (outcome.out + outcome.error).find(text) != std::string::npos;
  }

  TemporaryFolder folder_;
  PrivateDisk disk_;
};

TEST_F(DiskTest, TrainingGoesOnWhenASaveFindsTheDiskFull) {
  if (!disk_.mounted()) GTEST_SKIP() << "mounting needs root";
  ASSERT_EQ(train(folder_ / "whole").exit_code, 0);
  const std::string run = disk_.path() + "/run";
  ASSERT_TRUE(disk_.resize(kCheckpointBytes * 3 / 2));
  const Outcome full = train(run);
  EXPECT_NE(full.exit_code, 0);
  EXPECT_TRUE(says(full, "checkpoint of step 8 could not be saved")) << full.out << full.error;
  EXPECT_TRUE(says(full, "No space left")) << full.error;
  EXPECT_TRUE(says(full, "Training goes on")) << full.error;
  EXPECT_TRUE(says(full, "step 12"))
      << full.error;  // it got there, and lost only what came after 4
  EXPECT_TRUE(std::filesystem::exists(run + "/checkpoints/step-00000004.h5"));
  EXPECT_FALSE(std::filesystem::exists(run + "/checkpoints/step-00000008.h5"));

  ASSERT_TRUE(disk_.resize(64 << 20));
  const Outcome rest = train(run);
  ASSERT_EQ(rest.exit_code, 0) << rest.error;
  EXPECT_TRUE(says(rest, "step-00000004.h5")) << rest.out;
  EXPECT_EQ(weights(run), weights(folder_ / "whole"));
}

TEST_F(DiskTest, AReadOnlyDiskIsSaidAndLosesNothing) {
  if (!disk_.mounted()) GTEST_SKIP() << "mounting needs root";
  const std::string run = disk_.path() + "/run";
  ASSERT_EQ(train(run).exit_code, 0);
  const std::string before = weights(run);
  ASSERT_TRUE(disk_.make_read_only());
  const Outcome outcome = train(run);
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_TRUE(says(outcome, "Read-only file system")) << outcome.error;
  EXPECT_EQ(weights(run), before);
  const Outcome inspected =
      tessera(fmt::format("inspect --verify {}", run + "/checkpoints/step-00000012.h5"));
  EXPECT_EQ(inspected.exit_code, 0) << inspected.error;
}

}  // namespace
}  // namespace tessera::test
