// SPDX-License-Identifier: Apache-2.0
// Runs the blocks of a grid one after the other.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector_types.h>

namespace tessera::emulation {

/// A kernel with its arguments.
struct Grid {
  std::string kernel;
  dim3 blocks;
  dim3 threads;
  std::size_t shared_bytes = 0;
  const void* module = nullptr;  ///< any address inside the library that holds the kernel
  std::function<void()> thread;  ///< what each thread runs
};

/// Runs the whole grid on the calling OS thread. Only one grid may run at a time.
void execute(const Grid& grid);

/// Is a kernel running? Then running_thread() says "kernel NAME, block (0,0,0), thread (1,0,0)".
bool in_kernel();
const std::string& running_kernel();
std::string running_thread();

/// The kernel in __PRETTY_FUNCTION__ of a function with the kernel as template argument; any other
/// text stays as it is.
std::string kernel_name(std::string_view text);

}  // namespace tessera::emulation
