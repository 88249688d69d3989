// SPDX-License-Identifier: Apache-2.0
// Depths as a picture.
#pragma once

#include <string>
#include <vector>

#include "shallow_water.hpp"

/// Writes the depths of grids of one size side by side, blue where they are low and red where they
/// are high, as a portable pixmap. Collective.
void write_picture(const std::string& path, const std::vector<const ShallowWater*>& grids,
                   MPI_Comm communicator);
