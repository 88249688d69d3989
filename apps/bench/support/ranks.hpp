// SPDX-License-Identifier: Apache-2.0
// A communicator's ranks as the harness wants them.
#pragma once

#include "tessera/comm/communicator.hpp"

#include "support/bench.hpp"

namespace tessera::bench {

/// `group` must outlive the result.
inline Ranks ranks_of(Communicator& group) {
  return {.max = [&](double value) { return group.all_reduce_scalar(value, Reduction::max); },
          .barrier = [&] { group.barrier(); },
          .rank = group.rank(),
          .size = group.size()};
}

}  // namespace tessera::bench
