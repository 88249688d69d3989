// SPDX-License-Identifier: Apache-2.0
// Mesh shapes and node maps against brute force: pure functions, no ranks needed.
#include "tessera/comm/mesh.hpp"

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/base/timer.hpp"

namespace tessera {
namespace {

std::string error_of(const MeshShape& shape, int ranks) {
  try {
    (void)shape.resolved(ranks);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::invalid_config);
    return error.what();
  }
  return "";
}

TEST(MeshShape, FillsInWhatIsLeft) {
  EXPECT_EQ((MeshShape{2, 0, 1, 2}.resolved(16).data), 4);
  EXPECT_EQ((MeshShape{1, 0, 1, 1}.resolved(1).data), 1);
  EXPECT_EQ((MeshShape{2, 3, 1, 2}.resolved(12).to_string()),
            "pipeline 2 x data 3 x sequence 1 x tensor 2");
}

TEST(MeshShape, ErrorsShowTheFactors) {
  EXPECT_NE(error_of({3, 0, 1, 2}, 16).find("pipeline 3 x sequence 1 x tensor 2 = 6"),
            std::string::npos);
  const std::string text = error_of({2, 3, 1, 2}, 16);
  EXPECT_NE(text.find("pipeline 2 x data 3 x sequence 1 x tensor 2"), std::string::npos);
  EXPECT_NE(text.find("12 places"), std::string::npos);
  EXPECT_NE(text.find("16 ranks"), std::string::npos);
  EXPECT_NE(error_of({1, 0, 0, 1}, 4).find("mesh.sequence is 0"), std::string::npos);
  EXPECT_NE(error_of({1, -2, 1, 1}, 4).find("mesh.data is -2"), std::string::npos);
}

/// Every rank of every shape: coordinates and ranks are inverse, tensor varies fastest, and the
/// groups of an axis are the ranks that differ in that coordinate only.
TEST(MeshShape, AgreesWithNestedLoops) {
  for (const MeshShape shape : {MeshShape{1, 1, 1, 1}, MeshShape{2, 3, 1, 2}, MeshShape{3, 2, 2, 2},
                                MeshShape{1, 7, 1, 1}, MeshShape{4, 1, 3, 1}}) {
    int rank = 0;
    for (int p = 0; p < shape.pipeline; ++p)
      for (int d = 0; d < shape.data; ++d)
        for (int s = 0; s < shape.sequence; ++s)
          for (int t = 0; t < shape.tensor; ++t, ++rank) {
            EXPECT_EQ(shape.coordinates(rank), (std::array<int, 4>{p, d, s, t}));
            EXPECT_EQ(shape.rank_of({p, d, s, t}), rank);
          }
    ASSERT_EQ(rank, shape.ranks());
    const std::array<const char*, 4> axes = {"pipeline", "data", "sequence", "tensor"};
    for (int r = 0; r < shape.ranks(); ++r)
      for (std::size_t axis = 0; axis < axes.size(); ++axis) {
        std::vector<int> expected;
        for (int other = 0; other < shape.ranks(); ++other) {
          auto a = shape.coordinates(r), b = shape.coordinates(other);
          a[axis] = b[axis] = 0;
          if (a == b) expected.push_back(other);
        }
        EXPECT_EQ(shape.group(axes[axis], r), expected);
      }
  }
}

TEST(MeshShape, SixteenThousandRanksAreQuick) {
  const Timer timer;
  const MeshShape shape = MeshShape{16, 0, 4, 8}.resolved(16384);
  EXPECT_EQ(shape.data, 32);
  std::int64_t members = 0;
  for (int r = 0; r < 16384; ++r) {
    ASSERT_EQ(shape.rank_of(shape.coordinates(r)), r);
    for (const char* axis : {"pipeline", "data", "sequence", "tensor"}) {
      const std::vector<int> group = shape.group(axis, r);
      members += static_cast<std::int64_t>(group.size());
      ASSERT_TRUE(std::find(group.begin(), group.end(), r) != group.end());
    }
  }
  EXPECT_EQ(members, std::int64_t{16384} * (16 + 32 + 4 + 8));
  EXPECT_LT(timer.seconds(), 5.0);
}

TEST(MeshShape, UnknownAxisIsNamed) {
  try {
    (void)(MeshShape{1, 1, 1, 1}.group("expert", 0));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("'expert'"), std::string::npos);
  }
}

TEST(NodeMap, NumbersNodesByTheirFirstRank) {
  const NodeMap map = NodeMap::from_lists({{1, 3}, {0, 2, 4}}, 5);
  EXPECT_EQ(map.node_of, (std::vector<int>{0, 1, 0, 1, 0}));
  EXPECT_EQ(map.nodes(), 2);
  EXPECT_EQ(map.ranks_of(1), (std::vector<int>{1, 3}));
  EXPECT_EQ(map.to_string(), "[[0,2,4],[1,3]]");
  EXPECT_EQ(map.restrict_to({3, 4, 1}).node_of, (std::vector<int>{0, 1, 0}));
  EXPECT_EQ(NodeMap::single(3).node_of, (std::vector<int>{0, 0, 0}));
}

TEST(NodeMap, EveryRankOnce) {
  const auto text = [](const std::vector<std::vector<int>>& lists) -> std::string {
    try {
      (void)NodeMap::from_lists(lists, 4);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(text({{0, 1}, {2, 3}}), "");
  EXPECT_NE(text({{0, 1}, {3}}).find("leaves out rank 2"), std::string::npos);
  EXPECT_NE(text({{0, 1}, {1, 2, 3}}).find("rank 1 twice"), std::string::npos);
  EXPECT_NE(text({{0, 1}, {2, 4}}).find("rank 4"), std::string::npos);
}

}  // namespace
}  // namespace tessera
