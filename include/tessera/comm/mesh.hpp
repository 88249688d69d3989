// SPDX-License-Identifier: Apache-2.0
// The ranks as a grid with named axes, each with its communicators.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "tessera/base/mesh_shape.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/comm/mesh_plan.hpp"

namespace tessera {

/// Ranks are placed by a MeshPlan over world.nodes(). Rank 0 warns when groups of tensor or
/// sequence cross nodes.
/// Collective: construction and the first group() of the same axes.
class Mesh {
 public:
  /// Errors: as MeshShape::resolved.
  Mesh(Communicator& world, const MeshShape& shape);
  const MeshPlan& plan() const { return plan_; }
  const MeshShape& shape() const { return plan_.shape(); }
  Communicator& world() { return world_; }
  /// This rank's group along "pipeline", "data", "sequence", "tensor" or several together, such as
  /// "data+sequence", in the order of MeshPlan::group. Lives as long as the mesh.
  Communicator& group(const Axes& axes);
  int size(const Axes& axes) const { return shape().size(axes); }
  /// This rank's place in group(axes).
  int coordinate(const Axes& axes) const { return plan_.position(axes, world_.rank()); }

 private:
  Communicator& world_;
  MeshPlan plan_;
  std::map<Axes, std::unique_ptr<Communicator>> groups_;
};

}  // namespace tessera
