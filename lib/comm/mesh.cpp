// SPDX-License-Identifier: Apache-2.0
#include "tessera/comm/mesh.hpp"

#include "tessera/base/log.hpp"

namespace tessera {

Mesh::Mesh(Communicator& world, const MeshShape& shape)
    : world_(world), plan_(shape.resolved(world.size()), world.nodes()) {
  if (world.rank() != 0) return;
  for (const std::string& warning : plan_.warnings()) log_warning(warning);
}

Communicator& Mesh::group(const Axes& axes) {
  std::unique_ptr<Communicator>& group = groups_[axes];
  if (!group) {
    const int first = plan_.group(axes, world_.rank()).front();
    group = world_.split(first, coordinate(axes), axes.to_string());
  }
  return *group;
}

}  // namespace tessera
