// SPDX-License-Identifier: Apache-2.0
// Device memory in stream order. No CUDA header: the code without CUDA includes this too.
#pragma once

#include <cstddef>

#include "tessera/device/buffer.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::cuda {

/// On the current stream of `device`; see current_stream() for the order of use and release.
/// Memory comes from a pool of the driver (cudaMallocFromPoolAsync) that gives nothing back to the
/// system between steps, rather than from a cache of our own: the driver joins free pieces by
/// mapping them anew, so a long run does not end in fragments; memory moves between streams when an
/// event orders them; compute-sanitizer and the emulation see every buffer by itself.
Buffer allocate_device(std::size_t bytes, Device device, Purpose purpose);

/// The same without a buffer around it, which nobody counts: memory that is there from now on in
/// the order of `stream`, and goes back in that order.
void* take_memory(std::size_t bytes, const Stream& stream, Purpose purpose);
void release_memory(void* memory, const Stream& stream);

/// Gives the pool's unused memory back to the system.
void trim_device(Device device);

}  // namespace tessera::cuda
