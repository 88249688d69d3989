// SPDX-License-Identifier: Apache-2.0
// Places where a test can make a save fail, wait or transfer little by little.
#pragma once

#include <functional>

namespace tessera::checkpoint {

/// The places are "create", before each "write", "flush", "seal" and "rename". Does what
/// TESSERA_FAULT (CONTRIBUTING.md) asks for there, and calls the hook if it is set, which may
/// throw.
void fault_point(const char* point);

std::function<void(const char* point)>& fault_hook();

}  // namespace tessera::checkpoint
