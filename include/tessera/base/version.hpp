// SPDX-License-Identifier: Apache-2.0
// Which version of the library this is.
#pragma once

namespace tessera {

/// "0.1.0"
const char* version();

}  // namespace tessera
