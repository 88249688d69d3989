// SPDX-License-Identifier: Apache-2.0
// Which HDF5 this program runs with.
#pragma once

#include <string>

namespace tessera::checkpoint {

/// "1.10.8"
std::string hdf5_version();

}  // namespace tessera::checkpoint
