// SPDX-License-Identifier: Apache-2.0
// The transport never changes a bit for a given node map.
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/comm/runtime.hpp"

#include "zero/training.hpp"

namespace tessera::zero {
namespace {

using testing::Outcome;

std::vector<std::vector<int>> two_nodes(int ranks) {
  std::vector<std::vector<int>> nodes(2);
  for (int r = 0; r < ranks; ++r) nodes[r < ranks / 2 ? 0 : 1].push_back(r);
  return nodes;
}

std::vector<std::vector<int>> one_node(int ranks) {
  std::vector<std::vector<int>> nodes(1);
  for (int r = 0; r < ranks; ++r) nodes[0].push_back(r);
  return nodes;
}

class Transports : public ::testing::TestWithParam<int> {};

TEST_P(Transports, GiveTheSameBits) {
  int ranks = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  for (const auto& nodes : {one_node(ranks), two_nodes(ranks)}) {
    for (const DType dtype : {DType::fp32, DType::bf16, DType::fp16}) {
      std::optional<Outcome> expected;
      for (const char* transport : {"mpi", "shm", "hybrid"}) {
        Runtime runtime(CommOptions{.transport = transport, .nodes = nodes});
        Options options = testing::usual_options(GetParam(), dtype);
        options.accumulation_steps = 2;
        options.reduce_bucket_size = 20000;
        const Outcome result = testing::train(runtime.world(), options, 2);
        if (!expected) expected = result;
        EXPECT_EQ(result.norms, expected->norms) << transport;
        EXPECT_TRUE(result == *expected) << transport << " " << to_string(dtype);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Stages, Transports, ::testing::Values(0, 1, 2, 3));

}  // namespace
}  // namespace tessera::zero
