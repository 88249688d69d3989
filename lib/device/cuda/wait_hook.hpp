// SPDX-License-Identifier: Apache-2.0
// What the host does while it waits for a GPU.
#pragma once

#include <functional>

namespace tessera::cuda {

/// `hook` is called again and again while the host waits for a stream or an event; it may throw,
/// which ends the wait. Without one the host blocks in CUDA. Communication sets it, so that a peer
/// that failed does not leave this rank waiting for a kernel that never ends.
void set_wait_hook(std::function<void()> hook);

}  // namespace tessera::cuda
