// SPDX-License-Identifier: Apache-2.0
// Node maps: numbering, parts and mistakes.
#include "tessera/comm/node_map.hpp"

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

namespace tessera {
namespace {

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
