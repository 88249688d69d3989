// SPDX-License-Identifier: Apache-2.0
// Counting the threads that an operation starts.
#pragma once

#include <cstddef>
#include <filesystem>
#include <iterator>
#include <thread>

#include "support/kernel_testing.hpp"

namespace tessera::testing {

inline std::ptrdiff_t count_tasks() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), {});
}

/// How many workers OpenMP starts for body() on a thread that has none yet and may have one.
template <typename Body>
std::ptrdiff_t new_workers(Body&& body) {
  std::ptrdiff_t workers = 0;
  std::thread([&] {
    const WithThreads two(2);
    const std::ptrdiff_t before = count_tasks();
    body();
    workers = count_tasks() - before;
    EXPECT_EQ(threads(), 2);
  }).join();
  return workers;
}

}  // namespace tessera::testing
