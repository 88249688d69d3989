// SPDX-License-Identifier: Apache-2.0
// Sizes of the mesh, which both `mesh` and DeepSpeed's own keys can say.
#pragma once

#include <optional>

#include "tessera/base/mesh_shape.hpp"

#include "config/problems.hpp"
#include "config/values.hpp"

namespace tessera::config {

/// Adds keys that say different sizes of one axis.
void check_mesh(Values& values, Problems& problems);

/// The sizes that keys say; data 0 and others 1 where none does.
MeshShape said_mesh(Values& values);

/// Whether a key asks for a tensor axis of several ranks.
bool wants_tensor_axis(Values& values);

/// Fills in the sizes that `mesh` leaves open: from DeepSpeed's keys, data from `ranks` (if they
/// are known), others 1. Throws invalid_config when they do not fit the ranks.
void resolve_mesh(Values& values, std::optional<int> ranks);

}  // namespace tessera::config
