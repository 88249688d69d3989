// SPDX-License-Identifier: Apache-2.0
// Which rank of a job sits where in a mesh: a mesh's shape laid over the nodes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tessera/base/mesh_shape.hpp"
#include "tessera/comm/node_map.hpp"

namespace tessera {

/// Places of the mesh are filled node by node, in each node by rank, so that the fastest axes stay
/// inside nodes however the launcher numbered the ranks. On one node, and where the launcher fills
/// a node before the next, place and rank are the same number. Communicates with nobody: a plan
/// for thousands of ranks can be made anywhere.
class MeshPlan {
 public:
  /// Fills in shape.data. Errors: as MeshShape::resolved.
  MeshPlan(const MeshShape& shape, NodeMap nodes);

  const MeshShape& shape() const { return shape_; }
  const NodeMap& nodes() const { return nodes_; }

  // As in MeshShape, for ranks of the job. Groups are in the mesh's order.
  MeshCoordinates coordinates(int rank) const { return shape_.coordinates(place_of(rank)); }
  int rank_of(const MeshCoordinates& coordinates) const {
    return rank_at(shape_.rank_of(coordinates));
  }
  std::vector<int> group(const Axes& axes, int rank) const;
  std::vector<std::vector<int>> groups(const Axes& axes) const;
  int position(const Axes& axes, int rank) const { return shape_.position(axes, place_of(rank)); }
  std::optional<int> neighbour(Axis axis, int rank, int steps) const;
  int ring_neighbour(Axis axis, int rank, int steps) const;

  /// Groups along `axes` that are on more than one node.
  std::vector<std::vector<int>> crossing_groups(const Axes& axes) const;
  /// A line for each of tensor and sequence whose groups cross nodes: which, and what to change.
  std::vector<std::string> warnings() const;

 private:
  int place_of(int rank) const { return place_of_.at(static_cast<std::size_t>(rank)); }
  int rank_at(int place) const { return rank_at_[static_cast<std::size_t>(place)]; }
  std::string warning(Axis axis) const;

  NodeMap nodes_;
  MeshShape shape_;
  std::vector<int> rank_at_;   // by place
  std::vector<int> place_of_;  // by rank
};

}  // namespace tessera
