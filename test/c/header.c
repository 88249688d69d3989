// SPDX-License-Identifier: Apache-2.0
// The header alone, as strict C99.
#include "tessera/tessera.h"

int tessera_header_in_c(void);
int tessera_header_in_c(void) {
  const tessera_array array = {.rank = 1, .dims = {3}};
  const tessera_runtime_options options = {.struct_size = sizeof options};
  return (int)array.dims[0] + (int)(options.checked);
}
