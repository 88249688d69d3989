// SPDX-License-Identifier: Apache-2.0
// Dividing loops among the threads of a rank in pieces that depend on the sizes alone, never on the
// number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tessera/base/shape.hpp"

namespace tessera::kernels {

/// Elements that are worth a thread: some microseconds of work.
inline constexpr std::int64_t kChunk = 16384;
/// Multiply-adds that one thread ends before others have woken. Those spin after each region for
/// milliseconds, which stops a machine that has more threads than cores.
inline constexpr std::int64_t kSmallProduct = std::int64_t{1} << 18;

/// Calls body(begin, end) for consecutive chunks of [0, count).
template <typename Body>
void parallel_chunks(std::int64_t count, Body&& body, std::int64_t chunk = kChunk) {
  const std::int64_t chunks = ceil_divide(count, chunk);
#pragma omp parallel for schedule(static) if (chunks > 1)
  for (std::int64_t c = 0; c < chunks; ++c) body(c * chunk, std::min(count, (c + 1) * chunk));
}

/// Calls body(first, last) for consecutive ranges of rows.
template <typename Body>
void parallel_rows(std::int64_t rows, std::int64_t columns, Body&& body) {
  const std::int64_t row = std::max<std::int64_t>(columns, 1);
  parallel_chunks(rows, body, std::max<std::int64_t>(1, kChunk / row));
}

}  // namespace tessera::kernels
