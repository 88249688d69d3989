// SPDX-License-Identifier: Apache-2.0
// How far the clocks of ranks are apart.
#pragma once

#include <cstdint>
#include <functional>

#include "tessera/comm/communicator.hpp"

namespace tessera {

/// Nanoseconds.
struct ClockOffset {
  std::int64_t offset = 0;  ///< what to add to this rank's clock to get that of rank 0
  std::int64_t error = 0;   ///< by how much `offset` is wrong at most
  std::int64_t at = 0;      ///< when it was measured, by this rank's clock
};

/// Asks rank 0 for its time, `rounds` times, and believes the quickest answer: rank 0 read its
/// clock somewhere between question and answer, so the middle is wrong by half the round trip at
/// most (Cristian, Distributed Computing 3, 1989). Not counted as traffic. Collective; rank 0
/// serves one rank after the other.
ClockOffset measure_clock(Communicator& group, const std::function<std::int64_t()>& clock,
                          int rounds = 30);

}  // namespace tessera
