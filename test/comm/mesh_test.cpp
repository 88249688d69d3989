// SPDX-License-Identifier: Apache-2.0
// Meshes with communicators: each axis, several together, and ranks that nodes share in turn.
#include "tessera/comm/mesh.hpp"

#include <numeric>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/comm/runtime.hpp"

namespace tessera {
namespace {

/// Shapes of `ranks` ranks with every axis in use where that is possible.
std::vector<MeshShape> shapes_of(int ranks) {
  if (ranks % 8 == 0) return {{2, 0, 2, 2}, {2, 0, 1, 2}, {1, 0, 4, 1}, {}};
  if (ranks % 4 == 0) return {{2, 0, 1, 2}, {1, 0, 2, 2}, {1, 0, 2, 1}, {}};
  if (ranks % 2 == 0) return {{2, 0, 1, 1}, {1, 0, 1, 2}, {}};
  return {{}};
}

/// The ranks of the world in the order of a communicator.
std::vector<int> members_of(Communicator& group, int world_rank) {
  std::vector<int> members;
  for (const std::string& text : group.all_gather_text(std::to_string(world_rank)))
    members.push_back(std::stoi(text));
  return members;
}

TEST(MeshOfRanks, GroupsAreThoseOfThePlan) {
  for (const bool in_turn : {false, true}) {
    CommOptions options;
    Runtime runtime;
    const int size = runtime.size(), rank = runtime.rank();
    if (in_turn && size > 1) {
      options.nodes.resize(2);
      for (int r = 0; r < size; ++r) options.nodes[static_cast<std::size_t>(r % 2)].push_back(r);
    }
    Runtime placed(options);
    for (const MeshShape& shape : shapes_of(size)) {
      Mesh mesh(placed.world(), shape);
      EXPECT_EQ(mesh.shape().ranks(), size);
      for (const char* axes :
           {"tensor", "sequence", "data", "pipeline", "data+sequence", "pipeline+tensor"}) {
        Communicator& group = mesh.group(axes);
        EXPECT_EQ(&group, &mesh.group(axes));
        EXPECT_EQ(group.name(), axes);
        EXPECT_EQ(group.size(), mesh.size(axes));
        EXPECT_EQ(group.rank(), mesh.coordinate(axes));
        EXPECT_EQ(members_of(group, rank), mesh.plan().group(axes, rank));
      }
    }
  }
}

TEST(MeshOfRanks, AShapeThatDoesNotFitIsRefused) {
  Runtime runtime;
  EXPECT_THROW(Mesh(runtime.world(), MeshShape{1, 0, 1, runtime.size() + 1}), Error);
}

TEST(MeshOfRanks, RankZeroWarnsOfGroupsThatCrossNodes) {
  CommOptions options;
  const int size = Runtime().size();
  if (size < 2) GTEST_SKIP() << "needs two nodes";
  for (int r = 0; r < size; ++r) options.nodes.push_back({r});
  Runtime runtime(options);
  std::string heard;
  set_log_sink([&](LogLevel level, const std::string& line) {
    if (level == LogLevel::warning) heard += line;
  });
  Mesh mesh(runtime.world(), MeshShape{1, 0, 1, size});
  set_log_sink(nullptr);
  EXPECT_EQ(heard.find("1 of 1 tensor groups cross nodes") != std::string::npos,
            runtime.rank() == 0);
}

}  // namespace
}  // namespace tessera
