// SPDX-License-Identifier: Apache-2.0
// What tests and the emulated libraries may ask of the emulated CUDA: faults, seeds, progress and
// collectives of a warp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace tessera::emulation {

enum class FaultKind : std::uint8_t {
  divergence,       ///< threads wait for each other at different places
  memory,           ///< an access outside of live allocations, in a kernel, a copy or on the host
  default_stream,   ///< work on the null stream
  stream_deadlock,  ///< streams wait for each other, or for what nobody enqueues
  misuse,           ///< a call that CUDA does not define: a stream used after its end, …
};

struct Fault {
  FaultKind kind;
  std::string message;  ///< names kernel, block, thread and source line where they are known
};

/// Called on the host thread that runs the emulation, never inside a kernel; it may throw. If it
/// returns, the rest of the kernel or call is left out. Without a handler a fault is printed on
/// standard error and ends the process with abort().
/// A host access to device memory always ends the process.
using FaultHandler = std::function<void(const Fault&)>;
FaultHandler set_fault_handler(FaultHandler handler);

/// Reports a fault from host code (the emulated libraries use it too).
void report_fault(FaultKind kind, const std::string& message);

/// Order of warps, lanes, blocks and streams follows from the seed and the number of launches
/// since. The first seed is TESSERA_EMULATION_SEED, or 0.
void set_seed(std::uint64_t seed);
std::uint64_t seed();

/// Kernels that ran so far, those of graphs too.
std::int64_t launches();
/// Pieces of work that the host has put on streams so far. A launch of a graph is one.
std::int64_t enqueued();

}  // namespace tessera::emulation
