// SPDX-License-Identifier: Apache-2.0
// Copies from global to shared memory that a thread starts and waits for later.
#pragma once

#include <cstddef>

#include "emulation/warp.hpp"

namespace tessera::emulation {

/// Starts a copy. As on a GPU its bytes come when the thread waits for it; until then there is a
/// NaN.
void start_copy(void* shared, const void* global, std::size_t bytes);
/// Waits for all copies that the thread has started.
void wait_for_copies(const Site& site);
/// A new block begins.
void forget_copies();

}  // namespace tessera::emulation
