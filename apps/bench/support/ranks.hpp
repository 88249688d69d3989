// SPDX-License-Identifier: Apache-2.0
// A communicator's ranks as the harness wants them.
#pragma once

#include "tessera/comm/communicator.hpp"
#include "tessera/comm/runtime.hpp"

#include "support/bench.hpp"

namespace tessera::bench {

/// `group` must outlive the result.
inline Ranks ranks_of(Communicator& group) {
  return {.max = [&](double value) { return group.all_reduce_scalar(value, Reduction::max); },
          .barrier = [&] { group.barrier(); },
          .rank = group.rank(),
          .size = group.size()};
}

/// All of main() for a benchmark of the ranks that were started: `measure(program, world)`.
template <typename Measure>
int run_on_ranks(const char* name, int argc, char** argv, Measure&& measure) {
  Runtime runtime;
  Program program(name, argc, argv, ranks_of(runtime.world()));
  measure(program, runtime.world());
  return program.finish();
}

}  // namespace tessera::bench
