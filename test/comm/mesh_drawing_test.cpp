// SPDX-License-Identifier: Apache-2.0
// Meshes as text: small ones whole, large ones without their middle.
#include "tessera/comm/mesh_drawing.hpp"

#include <algorithm>
#include <sstream>

#include <gtest/gtest.h>

namespace tessera {
namespace {

NodeMap nodes_of(int ranks, int each) {
  NodeMap map;
  for (int r = 0; r < ranks; ++r) map.node_of.push_back(r / each);
  return map;
}

TEST(MeshDrawing, ShowsNodesAndCoordinates) {
  EXPECT_EQ(draw_mesh(MeshPlan({2, 2, 1, 2}, nodes_of(8, 4))),
            "        local 0     local 1     local 2     local 3\n"
            "node 0  0:p0 d0 t0  1:p0 d0 t1  2:p0 d1 t0  3:p0 d1 t1\n"
            "node 1  4:p1 d0 t0  5:p1 d0 t1  6:p1 d1 t0  7:p1 d1 t1\n");
  EXPECT_EQ(draw_mesh(MeshPlan({1, 1, 2, 2}, {{0, 1, 0, 1}})),
            "        local 0  local 1\n"
            "node 0  0:s0 t0  2:s0 t1\n"
            "node 1  1:s1 t0  3:s1 t1\n");
}

TEST(MeshDrawing, ShowsMeshesOfDataAlone) {
  EXPECT_EQ(draw_mesh(MeshPlan({}, NodeMap::single(1))), "        local 0\nnode 0  0:d0\n");
  EXPECT_EQ(draw_mesh(MeshPlan({}, nodes_of(5, 3))),
            "        local 0  local 1  local 2\n"
            "node 0  0:d0     1:d1     2:d2\n"
            "node 1  3:d3     4:d4\n");
}

TEST(MeshDrawing, LeavesTheMiddleOut) {
  EXPECT_EQ(draw_mesh(MeshPlan({1, 2, 1, 6}, NodeMap::single(12)), 42),
            "        local 0   local 1   …  local 11\n"
            "node 0  0:d0 t0   1:d0 t1   …  11:d1 t5\n");
  EXPECT_EQ(draw_mesh(MeshPlan({16, 0, 4, 8}, nodes_of(16384, 8)), 80),
            "           local 0              local 1              …  local 7\n"
            "node 0     0:p0 d0 s0 t0        1:p0 d0 s0 t1        …  7:p0 d0 s0 t7\n"
            "node 1     8:p0 d0 s1 t0        9:p0 d0 s1 t1        …  15:p0 d0 s1 t7\n"
            "node 2     16:p0 d0 s2 t0       17:p0 d0 s2 t1       …  23:p0 d0 s2 t7\n"
            "node 3     24:p0 d0 s3 t0       25:p0 d0 s3 t1       …  31:p0 d0 s3 t7\n"
            "…\n"
            "node 2044  16352:p15 d31 s0 t0  16353:p15 d31 s0 t1  …  16359:p15 d31 s0 t7\n"
            "node 2045  16360:p15 d31 s1 t0  16361:p15 d31 s1 t1  …  16367:p15 d31 s1 t7\n"
            "node 2046  16368:p15 d31 s2 t0  16369:p15 d31 s2 t1  …  16375:p15 d31 s2 t7\n"
            "node 2047  16376:p15 d31 s3 t0  16377:p15 d31 s3 t1  …  16383:p15 d31 s3 t7\n");
}

TEST(MeshDrawing, KeepsItsWidth) {
  for (const int ranks : {8, 64, 1000}) {
    std::istringstream lines(draw_mesh(MeshPlan({1, 0, 1, 4}, NodeMap::single(ranks)), 80));
    for (std::string line; std::getline(lines, line);)
      EXPECT_LE(line.size(), 82U) << line;  // "…" has three bytes
  }
}

}  // namespace
}  // namespace tessera
