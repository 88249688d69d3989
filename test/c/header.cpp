// SPDX-License-Identifier: Apache-2.0
// The header alone, as C++.
#include "tessera/tessera.h"

int tessera_header_in_cpp();
int tessera_header_in_cpp() {
  const tessera_array array = {};
  return array.rank;
}
