// SPDX-License-Identifier: Apache-2.0
// The ranks as a grid with named axes.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "tessera/comm/communicator.hpp"

namespace tessera {

/// Sizes of the axes; 0 for data means "what is left". The last axis varies fastest: tensor groups
/// are neighbours.
struct MeshShape {
  int pipeline = 1;
  int data = 0;
  int sequence = 1;
  int tensor = 1;

  /// Fills in data; throws invalid_config showing the factors when they do not multiply to `ranks`.
  MeshShape resolved(int ranks) const;
  int ranks() const { return pipeline * data * sequence * tensor; }
  std::array<int, 4> coordinates(int rank) const;  // {pipeline, data, sequence, tensor}
  int rank_of(std::array<int, 4> coordinates) const;
  /// Ranks that differ from `rank` only along `axis`, in order.
  std::vector<int> group(const std::string& axis, int rank) const;
  std::string to_string() const;  // "pipeline 1 x data 4 x sequence 1 x tensor 1"
};

/// Collective: construction and the first group(axis) of each axis.
class Mesh {
 public:
  Mesh(Communicator& world, const MeshShape& shape);
  const MeshShape& shape() const { return shape_; }
  Communicator& world() { return world_; }
  /// "pipeline", "data", "sequence", "tensor".
  Communicator& group(const std::string& axis);
  int size(const std::string& axis) const;
  int coordinate(const std::string& axis) const;

 private:
  Communicator& world_;
  MeshShape shape_;
  std::vector<std::unique_ptr<Communicator>> groups_;
};

}  // namespace tessera
