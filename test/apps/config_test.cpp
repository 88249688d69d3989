// SPDX-License-Identifier: Apache-2.0
// tessera config: which rank sits where, also on meshes that nothing can train on yet.
#include <gtest/gtest.h>

#include "support/program.hpp"

namespace tessera::test {
namespace {

class ConfigTest : public ::testing::Test {
 protected:
  ConfigTest() {
    spit(file,
         "model: {model_type: gpt2, n_layer: 2, n_embd: 32, n_head: 2, n_positions: 32}\n"
         "data: {train: [text.txt], sequence_length: 32}\n"
         "run: {steps: 6}\n"
         "engine: {train_batch_size: 8}\n");
  }

  Outcome config(const std::string& arguments) const {
    return tessera("config " + file + " " + arguments);
  }

  TemporaryFolder folder;
  std::string file = folder / "run.yaml";
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_F(ConfigTest, DrawsTheMesh) {
  const Outcome one = config("--ranks 4");
  EXPECT_EQ(one.exit_code, 0) << one.error;
  EXPECT_TRUE(one.out.ends_with(
      "mesh: pipeline 1 x data 4 x sequence 1 x tensor 1 = 4 rank(s) on 1 node(s) (assumed, see "
      "--ranks-per-node), as rank:coordinates\n"
      "        local 0  local 1  local 2  local 3\n"
      "node 0  0:d0     1:d1     2:d2     3:d3\n"))
      << one.out;
  const Outcome two = config("--ranks 4 --set 'comm.nodes=[[0, 2], [1, 3]]'");
  EXPECT_TRUE(
      two.out.ends_with("on 2 node(s), as rank:coordinates\n"
                        "        local 0  local 1\n"
                        "node 0  0:d0     2:d1\n"
                        "node 1  1:d2     3:d3\n"))
      << two.out;
  for (const char* wrong : {"--ranks 3 --set 'comm.nodes=[[0, 2], [1, 3]]'",
                            "--ranks 2 --set 'comm.nodes=[[0], [1]]' --ranks-per-node 1",
                            "--json --ranks-per-node 1", "--ranks 2000000000"})
    EXPECT_EQ(config(wrong).exit_code, 2) << wrong;
}

TEST_F(ConfigTest, DescribesMeshesOfSeveralAxes) {
  const std::string set = " --set mesh.pipeline=2 --set engine.tensor_parallel.autotp_size=2";
  const Outcome outcome = config("--ranks 8 --ranks-per-node 1" + set);
  EXPECT_TRUE(contains(outcome.out, "node 4  4:p1 d0 t0\n")) << outcome.out;
  EXPECT_TRUE(contains(outcome.out, "\nwarning: mesh.tensor is 2, and 4 of 4 tensor groups"));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.error;
  const Outcome alone = config("--set mesh.pipeline=2 --set mesh.tensor=2");
  EXPECT_TRUE(contains(alone.out, "x tensor 2 = 4 rank(s)")) << alone.out << alone.error;
  const Outcome refused = config("--ranks 64 --set mesh.pipeline=64");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_TRUE(contains(refused.error, "a pipeline of 64 stages needs a layer for each"));
}

}  // namespace
}  // namespace tessera::test
