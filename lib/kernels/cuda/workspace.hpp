// SPDX-License-Identifier: Apache-2.0
// Scratch memory of a kernel, born and taken back in the order of the stream that the kernel runs
// on.
#pragma once

#include <cstddef>

#include "tessera/device/buffer.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels::cuda {

/// For kernels enqueued on `stream` before the buffer is destroyed.
inline Buffer allocate_workspace(const Stream& stream, std::size_t bytes) {
  const StreamScope scope(stream);
  return allocate(bytes, stream.device(), Purpose::workspace);
}

}  // namespace tessera::kernels::cuda
