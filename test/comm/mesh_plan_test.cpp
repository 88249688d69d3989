// SPDX-License-Identifier: Apache-2.0
// Plans of meshes over nodes: which groups stay inside, and what is said when they do not.
#include "tessera/comm/mesh_plan.hpp"

#include <algorithm>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;
using Group = std::vector<int>;

/// `ranks` ranks on nodes of `each`; in turn: rank r is on node r mod nodes.
NodeMap nodes_of(int ranks, int each, bool in_turn = false) {
  const int nodes = (ranks + each - 1) / each;
  NodeMap map;
  for (int r = 0; r < ranks; ++r) map.node_of.push_back(in_turn ? r % nodes : r / each);
  return map;
}

TEST(MeshPlan, IsTheShapeWhereNodesAreFilledInOrder) {
  const MeshShape shape = {2, 2, 2, 2};
  for (const NodeMap& nodes : {NodeMap::single(16), nodes_of(16, 4), nodes_of(16, 3)}) {
    const MeshPlan plan(shape, nodes);
    for (const char* axes : {"pipeline", "data", "sequence", "tensor", "data+sequence"})
      EXPECT_EQ(plan.groups(axes), shape.groups(axes));
    for (int rank = 0; rank < 16; ++rank) {
      EXPECT_EQ(plan.coordinates(rank), shape.coordinates(rank));
      EXPECT_EQ(plan.neighbour(Axis::pipeline, rank, 1), shape.neighbour(Axis::pipeline, rank, 1));
    }
  }
  EXPECT_EQ(MeshPlan(MeshShape{2, 0, 1, 2}, nodes_of(16, 8)).shape().data, 4);
  EXPECT_THROW(MeshPlan(MeshShape{3, 0, 1, 1}, nodes_of(16, 8)), Error);
}

/// A launcher that deals ranks out in turn: 0 2 4 6 | 1 3 5 7.
TEST(MeshPlan, GroupsStayInsideNodesHoweverRanksAreNumbered) {
  const MeshPlan plan(MeshShape{2, 2, 1, 2}, nodes_of(8, 4, true));
  EXPECT_THAT(plan.groups("tensor"),
              ElementsAre(Group{0, 2}, Group{4, 6}, Group{1, 3}, Group{5, 7}));
  EXPECT_THAT(plan.groups("data"), ElementsAre(Group{0, 4}, Group{2, 6}, Group{1, 5}, Group{3, 7}));
  EXPECT_THAT(plan.groups("pipeline"),
              ElementsAre(Group{0, 1}, Group{2, 3}, Group{4, 5}, Group{6, 7}));
  EXPECT_TRUE(plan.crossing_groups("tensor").empty());
  EXPECT_THAT(plan.crossing_groups("pipeline"), SizeIs(4));
  EXPECT_TRUE(plan.warnings().empty());
  EXPECT_EQ(plan.coordinates(5), (MeshCoordinates{1, 1, 0, 0}));
  EXPECT_EQ(plan.neighbour(Axis::pipeline, 5, -1), 4);
  EXPECT_EQ(plan.neighbour(Axis::pipeline, 5, 1), std::nullopt);
  EXPECT_EQ(plan.ring_neighbour(Axis::tensor, 7, 1), 5);
}

/// Ranks and coordinates are inverse, groups are each rank's own, and those of an axis stay inside
/// nodes whenever the nodes hold a multiple of it and the faster ones.
TEST(MeshPlan, AgreesWithItselfOverManyNodeMaps) {
  for (const MeshShape& shape : {MeshShape{1, 24, 1, 1}, MeshShape{2, 3, 2, 2},
                                 MeshShape{1, 2, 3, 4}, MeshShape{4, 1, 1, 6}})
    for (const int each : {1, 2, 3, 4, 6, 8, 12, 24})
      for (const bool in_turn : {false, true}) {
        const MeshPlan plan(shape, nodes_of(24, each, in_turn));
        for (int rank = 0; rank < 24; ++rank) ASSERT_EQ(plan.rank_of(plan.coordinates(rank)), rank);
        int faster = 1;
        for (const Axis axis : {Axis::tensor, Axis::sequence, Axis::data, Axis::pipeline}) {
          faster *= shape.size(axis);
          const bool inside = each % faster == 0 || shape.size(axis) == 1;
          ASSERT_TRUE(!inside || plan.crossing_groups(axis).empty());
          for (const Group& group : plan.groups(axis))
            for (std::size_t i = 0; i < group.size(); ++i) {
              ASSERT_EQ(plan.group(axis, group[i]), group);
              ASSERT_EQ(plan.position(axis, group[i]), static_cast<int>(i));
              ASSERT_EQ(plan.ring_neighbour(axis, group[i], 1), group[(i + 1) % group.size()]);
            }
        }
      }
}

TEST(MeshPlan, WarnsWhenTensorGroupsCrossNodes) {
  EXPECT_TRUE(MeshPlan(MeshShape{1, 2, 1, 4}, nodes_of(8, 4)).warnings().empty());
  EXPECT_THAT(
      MeshPlan(MeshShape{1, 2, 1, 4}, nodes_of(8, 2)).warnings(),
      ElementsAre("mesh.tensor is 4, and 2 of 2 tensor groups cross nodes (ranks 0, 1, 2, 3 are on "
                  "nodes 0, 1): every matrix product waits for the network. Make mesh.tensor "
                  "2, which fits inside the nodes, or start a multiple of 4 ranks on each node"));
  // Three ranks on a node: the group in the middle crosses, no pair fits everywhere.
  EXPECT_THAT(MeshPlan(MeshShape{3, 1, 1, 2}, nodes_of(6, 3)).warnings(),
              ElementsAre(StartsWith(
                  "mesh.tensor is 2, and 1 of 3 tensor groups cross nodes (ranks 2, 3 are on nodes "
                  "0, 1): every matrix product waits for the network. Make mesh.tensor 1 and "
                  "give its ranks to pipeline or data, or start a multiple of 2 ranks")));
}

TEST(MeshPlan, WarnsWhenSequenceGroupsCrossNodes) {
  const MeshPlan plan(MeshShape{1, 1, 4, 2}, nodes_of(8, 4));
  EXPECT_THAT(plan.warnings(),
              ElementsAre("mesh.sequence is 4, and 2 of 2 sequence groups cross nodes (ranks 0, 2, "
                          "4, 6 are on nodes 0, 1): every attention waits for the network. "
                          "Make mesh.sequence 2, which fits inside the nodes, or start a multiple "
                          "of 8 ranks on each node"));
  EXPECT_THAT(
      MeshPlan(MeshShape{1, 1, 2, 16}, nodes_of(32, 8)).warnings(),
      ElementsAre(HasSubstr("(ranks 0, 1, 2, … are on nodes 0, 1)"),
                  HasSubstr("sequence groups cross nodes (ranks 0, 16 are on nodes 0, 2)")));
}

TEST(MeshPlan, SixteenThousandRanks) {
  const MeshPlan plan(MeshShape{16, 0, 4, 8}, nodes_of(16384, 8, true));
  EXPECT_EQ(plan.shape().data, 32);
  for (int rank = 0; rank < 16384; ++rank) ASSERT_EQ(plan.rank_of(plan.coordinates(rank)), rank);
  for (const char* axes : {"pipeline", "data", "sequence", "tensor", "data+sequence"}) {
    std::set<int> seen;
    for (const Group& group : plan.groups(axes)) seen.insert(group.begin(), group.end());
    EXPECT_THAT(seen, SizeIs(16384));
  }
  EXPECT_THAT(plan.warnings(), ElementsAre(HasSubstr("4096 of 4096 sequence groups")));
}

}  // namespace
}  // namespace tessera
