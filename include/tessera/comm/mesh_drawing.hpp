// SPDX-License-Identifier: Apache-2.0
// A mesh as a table of text.
#pragma once

#include <string>

#include "tessera/comm/mesh_plan.hpp"

namespace tessera {

/// A line for each node with its ranks as `rank:coordinates` by the axes' first letters, e.g.
/// "5:p1 d0 t1", on lines of about `columns` characters; the middle of many nodes or of many ranks
/// on a node is left out.
std::string draw_mesh(const MeshPlan& plan, int columns = 100);

}  // namespace tessera
