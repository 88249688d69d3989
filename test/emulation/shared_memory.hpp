// SPDX-License-Identifier: Apache-2.0
// Where a block's shared memory lies.
#pragma once

#include <cstddef>

namespace tessera::emulation {

/// Fills the static shared memory of a library (its thread-local storage) and `dynamic_bytes` of
/// dynamic shared memory with 0xFF, so that each float read before it is written is a NaN.
/// `module` is any address inside the library.
void poison_shared_memory(const void* module, std::size_t dynamic_bytes);

void* dynamic_shared_memory();

}  // namespace tessera::emulation
