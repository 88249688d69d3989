// SPDX-License-Identifier: Apache-2.0
// The largest transfer that one system call is asked for, which tests lower.
#pragma once

#include <cstddef>

namespace tessera {

/// Bytes; Linux moves at most about 2 GiB in one call. Process-wide; change it while no file is
/// being written or read.
std::size_t& largest_transfer();

}  // namespace tessera
