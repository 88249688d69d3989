// SPDX-License-Identifier: Apache-2.0
// Measuring what `tessera plan` wants to know of a machine.
#pragma once

#include "tessera/comm/runtime.hpp"
#include "tessera/planning/machine.hpp"

namespace tessera::app {

/// Rates of this machine's processors while all ranks of the runtime work, in a few seconds:
/// those of the slowest rank. Collective over runtime.world().
planning::Machine calibrate(Runtime& runtime);

}  // namespace tessera::app
