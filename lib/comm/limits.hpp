// SPDX-License-Identifier: Apache-2.0
// Internal sizes of the transports, which tests lower to reach the chunked paths with little data.
#pragma once

#include <cstdint>

namespace tessera::comm {

struct Limits {
  /// Largest single MPI message: MPI counts are 32-bit.
  std::int64_t message_bytes = std::int64_t{1} << 30;
  /// What one rank holds for pieces of its peers while it folds them (mpi, hybrid).
  std::int64_t exchange_bytes = std::int64_t{8} << 20;
  /// One of the two halves of a rank's staging area in shared memory.
  std::int64_t staging_bytes = std::int64_t{1} << 20;
  /// All-reduces up to this size are exchanged whole and folded by everybody (mpi).
  std::int64_t small_bytes = 4096;
  /// Contributions up to this size travel in the announcement (shm).
  std::int64_t inline_bytes = 1024;
};

/// Process-wide; must be the same on all ranks, and not change while a Runtime lives.
Limits& limits();

}  // namespace tessera::comm
