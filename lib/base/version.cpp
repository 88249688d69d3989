// SPDX-License-Identifier: Apache-2.0
// The version, as the build system knows it.
#include "tessera/base/version.hpp"

namespace tessera {

const char* version() {
  return TESSERA_VERSION;
}

}  // namespace tessera
