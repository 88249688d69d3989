// SPDX-License-Identifier: Apache-2.0
// Mesh shapes against published tables of groups, nested loops and brute force.
#include "tessera/base/mesh_shape.hpp"

#include <algorithm>
#include <array>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Group = std::vector<int>;

std::string error_of(const MeshShape& shape, int ranks) {
  try {
    (void)shape.resolved(ranks);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::invalid_config);
    return error.what();
  }
  return "";
}

/// All shapes of up to `most` ranks.
std::vector<MeshShape> shapes_up_to(int most) {
  std::vector<MeshShape> shapes;
  for (int p = 1; p <= most; ++p)
    for (int d = 1; p * d <= most; ++d)
      for (int s = 1; p * d * s <= most; ++s)
        for (int t = 1; p * d * s * t <= most; ++t) shapes.push_back({p, d, s, t});
  return shapes;
}

std::vector<Axes> all_axes() {
  std::vector<Axes> sets;
  for (unsigned bits = 1; bits < 16; ++bits) {
    std::optional<Axes> set;
    for (const Axis axis : kAxes)
      if (bits >> static_cast<unsigned>(axis) & 1U) set = set ? *set | axis : Axes(axis);
    sets.push_back(*set);
  }
  return sets;
}

TEST(Axes, HaveNames) {
  EXPECT_EQ(Axes("data"), Axes(Axis::data));
  EXPECT_EQ(Axes("sequence+data"), Axis::data | Axes(Axis::sequence));
  EXPECT_EQ(Axes("sequence+data").to_string(), "data+sequence");
  for (const Axes& axes : all_axes()) EXPECT_EQ(Axes(axes.to_string()), axes);
  for (const char* wrong : {"expert", "", "data+", "data+expert", "data sequence"}) {
    try {
      (void)Axes(wrong);
      ADD_FAILURE() << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::invalid_argument);
      EXPECT_THAT(error.what(), HasSubstr("has no axis '"));
    }
  }
}

TEST(MeshShape, FillsInWhatIsLeft) {
  EXPECT_EQ((MeshShape{2, 0, 1, 2}.resolved(16)), (MeshShape{2, 4, 1, 2}));
  EXPECT_EQ((MeshShape{1, 0, 1, 1}.resolved(1).data), 1);
  EXPECT_EQ((MeshShape{2, 3, 1, 2}.resolved(12).to_string()),
            "pipeline 2 x data 3 x sequence 1 x tensor 2");
}

/// Published runs name tensor, pipeline and context (sequence) sizes; data is what is left.
TEST(MeshShape, PublishedRunsHaveTheirDataSize) {
  EXPECT_EQ((MeshShape{2, 0, 1, 8}.resolved(768).data), 48);    // Megatron 70B
  EXPECT_EQ((MeshShape{16, 0, 1, 8}.resolved(6144).data), 48);  // Megatron 462B
  EXPECT_EQ((MeshShape{8, 0, 2, 8}.resolved(1024).data), 8);    // Llama 405B
  EXPECT_EQ((MeshShape{8, 0, 1, 4}.resolved(64).data), 2);      // Llama 70B
  EXPECT_EQ((MeshShape{1, 0, 1, 8}.resolved(256).data), 32);    // torchtitan 70B
  EXPECT_EQ((MeshShape{8, 0, 1, 8}.resolved(512).data), 8);     // torchtitan 405B
}

TEST(MeshShape, ErrorsShowTheFactors) {
  EXPECT_EQ(error_of({3, 0, 1, 2}, 16),
            "the mesh pipeline 3 x sequence 1 x tensor 2 = 6 does not divide the 16 ranks, so "
            "nothing whole is left for data. Nearest for 16 ranks: pipeline 4 x data 2 x tensor 2; "
            "pipeline 2 x data 4 x tensor 2; pipeline 8 x tensor 2. As it is, the mesh takes 12 or "
            "18 ranks");
  EXPECT_EQ(error_of({2, 3, 1, 2}, 16),
            "the mesh pipeline 2 x data 3 x sequence 1 x tensor 2 has 12 places, but there are 16 "
            "ranks. Nearest for 16 ranks: pipeline 2 x data 4 x tensor 2; pipeline 2 x data 2 x "
            "tensor 4; pipeline 4 x data 2 x tensor 2. As it is, the mesh takes 12 ranks");
  EXPECT_THAT(error_of({1, 0, 1, 8}, 4),
              HasSubstr("Nearest for 4 ranks: tensor 4; data 2 x tensor 2; data 4. As it is, the "
                        "mesh takes at least 8 ranks"));
  EXPECT_THAT(error_of({1, 2, 1, 1}, 1), HasSubstr("Nearest for 1 ranks: data 1. As it is"));
  EXPECT_THAT(error_of({1, 0, 0, 1}, 4), HasSubstr("mesh.sequence is 0"));
  EXPECT_THAT(error_of({1, -2, 1, 1}, 4), HasSubstr("mesh.data is -2"));
  constexpr int kLarge = 1'000'000'000;
  EXPECT_THAT(error_of({kLarge, 0, kLarge, kLarge}, 4), HasSubstr("does not divide the 4 ranks"));
}

/// The shapes that an error names are possible, none is nearer, and one that fits is its own.
TEST(MeshShape, NearestShapesWork) {
  for (const MeshShape& shape : shapes_up_to(12)) {
    EXPECT_EQ(shape.nearest(shape.ranks(), 1).front(), shape);
    for (const int ranks : {1, 6, 12, 16}) {
      const std::vector<MeshShape> near = shape.nearest(ranks, 3);
      ASSERT_FALSE(near.empty());
      const auto changed = [&](const MeshShape& other) {
        int count = 0;
        for (const Axis axis : kAxes)
          if (shape.size(axis) != other.size(axis)) count += shape.size(axis) == 1 ? 2 : 1;
        return count;
      };
      int fewest = 8;
      for (const MeshShape& other : shapes_up_to(ranks))
        if (other.ranks() == ranks) fewest = std::min(fewest, changed(other));
      EXPECT_EQ(changed(near.front()), fewest) << shape.to_string() << " on " << ranks;
      for (const MeshShape& one : near) EXPECT_EQ(one.resolved(ranks), one);
    }
  }
}

/// The example of Megatron's documentation: 16 ranks, tensor 2, pipeline 4.
TEST(MeshShape, GroupsAreMegatrons) {
  const MeshShape shape = {4, 2, 1, 2};
  EXPECT_THAT(shape.groups("data"),
              ElementsAre(Group{0, 2}, Group{1, 3}, Group{4, 6}, Group{5, 7}, Group{8, 10},
                          Group{9, 11}, Group{12, 14}, Group{13, 15}));
  EXPECT_THAT(shape.groups("tensor"),
              ElementsAre(Group{0, 1}, Group{2, 3}, Group{4, 5}, Group{6, 7}, Group{8, 9},
                          Group{10, 11}, Group{12, 13}, Group{14, 15}));
  EXPECT_THAT(shape.groups("pipeline"), ElementsAre(Group{0, 4, 8, 12}, Group{1, 5, 9, 13},
                                                    Group{2, 6, 10, 14}, Group{3, 7, 11, 15}));
}

/// DeepSpeed's PipeModelDataParallelTopology(num_pp=2, num_mp=2, num_dp=2): axes pipe, data, model.
TEST(MeshShape, GroupsAreDeepSpeeds) {
  const MeshShape shape = {2, 2, 1, 2};
  EXPECT_THAT(shape.groups("pipeline"),
              ElementsAre(Group{0, 4}, Group{1, 5}, Group{2, 6}, Group{3, 7}));
  EXPECT_THAT(shape.groups("data"),
              ElementsAre(Group{0, 2}, Group{1, 3}, Group{4, 6}, Group{5, 7}));
  EXPECT_THAT(shape.groups("pipeline+tensor"), ElementsAre(Group{0, 1, 4, 5}, Group{2, 3, 6, 7}));
}

TEST(MeshShape, SequenceLiesBetweenDataAndTensor) {
  const MeshShape shape = {1, 2, 2, 2};
  EXPECT_THAT(shape.groups("sequence"),
              ElementsAre(Group{0, 2}, Group{1, 3}, Group{4, 6}, Group{5, 7}));
  EXPECT_THAT(shape.groups("data+sequence"), ElementsAre(Group{0, 2, 4, 6}, Group{1, 3, 5, 7}));
}

/// Ranks count up as nested loops do, tensor innermost.
TEST(MeshShape, CoordinatesAreThoseOfNestedLoops) {
  for (const MeshShape& shape : shapes_up_to(36)) {
    int rank = 0;
    for (int p = 0; p < shape.pipeline; ++p)
      for (int d = 0; d < shape.data; ++d)
        for (int s = 0; s < shape.sequence; ++s)
          for (int t = 0; t < shape.tensor; ++t, ++rank) {
            ASSERT_EQ(shape.coordinates(rank), (MeshCoordinates{p, d, s, t}));
            ASSERT_EQ(shape.rank_of({p, d, s, t}), rank);
          }
    ASSERT_EQ(rank, shape.ranks());
  }
}

/// A group holds exactly the ranks that agree on all other axes, in order.
void expect_groups(const MeshShape& shape, const Axes& axes) {
  int covered = 0;
  for (const Group& group : shape.groups(axes)) {
    ASSERT_EQ(std::ssize(group), shape.size(axes));
    covered += shape.size(axes);
    const int first = group.front();
    Group expected;
    for (int other = 0; other < shape.ranks(); ++other) {
      const MeshCoordinates a = shape.coordinates(first), b = shape.coordinates(other);
      bool same = true;
      for (std::size_t i = 0; i < kAxes.size(); ++i) same &= axes.has(kAxes[i]) || a[i] == b[i];
      if (same) expected.push_back(other);
    }
    ASSERT_EQ(group, expected) << shape.to_string() << " " << axes.to_string();
    for (std::size_t i = 0; i < group.size(); ++i) {
      ASSERT_EQ(shape.group(axes, group[i]), group);
      ASSERT_EQ(shape.position(axes, group[i]), static_cast<int>(i));
    }
  }
  ASSERT_EQ(covered, shape.ranks());
}

TEST(MeshShape, GroupsAgreeWithBruteForce) {
  for (const MeshShape& shape : shapes_up_to(24))
    for (const Axes& axes : all_axes()) expect_groups(shape, axes);
}

TEST(MeshShape, NeighboursAreThoseOfTheGroup) {
  for (const MeshShape& shape : shapes_up_to(24))
    for (const Axis axis : kAxes)
      for (int rank = 0; rank < shape.ranks(); ++rank) {
        const Group group = shape.group(axis, rank);
        const int size = shape.size(axis), at = shape.position(axis, rank);
        for (int steps = -size - 1; steps <= size + 1; ++steps) {
          const int to = at + steps;
          const bool inside = to >= 0 && to < size;
          const auto line = shape.neighbour(axis, rank, steps);
          ASSERT_EQ(line,
                    inside ? std::optional(group[static_cast<std::size_t>(to)]) : std::nullopt);
          const auto around = static_cast<std::size_t>((to + 2 * size) % size);
          ASSERT_EQ(shape.ring_neighbour(axis, rank, steps), group[around]);
        }
      }
}

TEST(MeshShape, SixteenThousandRanks) {
  const MeshShape shape = MeshShape{16, 0, 4, 8}.resolved(16384);
  EXPECT_EQ(shape.data, 32);
  for (int rank = 0; rank < shape.ranks(); ++rank)
    ASSERT_EQ(shape.rank_of(shape.coordinates(rank)), rank);
  for (const Axes& axes : all_axes()) {
    std::vector<bool> seen(16384);
    for (const Group& group : shape.groups(axes)) {
      ASSERT_TRUE(std::is_sorted(group.begin(), group.end()));
      for (const int rank : group) {
        ASSERT_FALSE(seen[static_cast<std::size_t>(rank)]);
        seen[static_cast<std::size_t>(rank)] = true;
      }
    }
    EXPECT_EQ(std::count(seen.begin(), seen.end(), true), 16384) << axes.to_string();
  }
}

}  // namespace
}  // namespace tessera
