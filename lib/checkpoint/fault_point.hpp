// SPDX-License-Identifier: Apache-2.0
// Places where a test can make a save fail or stop.
#pragma once

#include <functional>

namespace tessera::checkpoint {

/// Called at "create", before each "write", at "flush", "seal" and "rename" if it is set; may
/// throw.
std::function<void(const char* point)>& fault_hook();

inline void fault_point(const char* point) {
  if (fault_hook()) fault_hook()(point);
}

}  // namespace tessera::checkpoint
