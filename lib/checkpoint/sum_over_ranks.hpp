// SPDX-License-Identifier: Apache-2.0
// Checksums over all ranks.
#pragma once

#include <cstdint>
#include <vector>

#include "tessera/comm/communicator.hpp"

namespace tessera::checkpoint {

/// Sums modulo 2^64 on every rank. Collective.
void sum_over_ranks(Communicator& group, std::vector<std::uint64_t>& values);

}  // namespace tessera::checkpoint
