// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/library_version.hpp"

#include <fmt/format.h>
#include <hdf5.h>

namespace tessera::checkpoint {

std::string hdf5_version() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

}  // namespace tessera::checkpoint
