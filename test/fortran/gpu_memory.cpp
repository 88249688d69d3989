// SPDX-License-Identifier: Apache-2.0
// Memory of a GPU for a Fortran program whose compiler knows none.
#include <cstddef>

#include "tessera/device/buffer.hpp"
#include "tessera/device/cuda.hpp"

#include "support/test_device.hpp"

namespace {

using namespace tessera;

const Stream& stream() {
  static const auto* made = new Stream(make_stream(tessera::testing::test_device()));
  return *made;
}

}  // namespace

extern "C" {

/// A copy, never given back.
void* gpu_copy(const void* host, std::size_t bytes) {
  const StreamScope scope(stream());
  const auto* buffer = new Buffer(allocate(bytes, stream().device(), Purpose::workspace));
  stream().copy(buffer->data(), host, bytes);
  stream().synchronize();
  return buffer->data();
}

void gpu_fetch(void* host, const void* device, std::size_t bytes) {
  stream().copy(host, device, bytes);
  stream().synchronize();
}
}
