// SPDX-License-Identifier: Apache-2.0
// Tests that need a GPU, real or emulated.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/device/cuda.hpp"

/// First line of a test: without a GPU it is left out, but in the emulated build, which always has
/// one, it fails.
#define TESSERA_NEEDS_GPU()                                                                        \
  do {                                                                                             \
    ASSERT_TRUE(::tessera::cuda_device_count() > 0 || !std::getenv("TESSERA_TEST_EXPECTS_GPU"))    \
        << ::tessera::cuda_unavailable_reason();                                                   \
    if (::tessera::cuda_device_count() == 0) GTEST_SKIP() << ::tessera::cuda_unavailable_reason(); \
  } while (false)

namespace tessera::test {

inline Device gpu() {
  return {DeviceType::cuda, 0};
}

/// Whether NCCL serves this many ranks of a machine: one GPU each, unless it was told to share.
inline bool nccl_reaches(int ranks) {
  return cuda_device_count() >= ranks || std::getenv("NCCL_MULTI_RANK_GPU_ENABLE") != nullptr;
}

/// A device buffer that holds `values`.
template <typename T>
Buffer on_device(const Stream& stream, const std::vector<T>& values,
                 Purpose purpose = Purpose::workspace) {
  const StreamScope scope(stream);
  Buffer buffer = allocate(values.size() * sizeof(T), stream.device(), purpose);
  stream.copy(buffer.data(), values.data(), buffer.bytes());
  stream.synchronize();
  return buffer;
}

/// `count` elements of the device, after the work of `stream`.
template <typename T>
std::vector<T> on_host(const Stream& stream, const void* data, std::size_t count) {
  std::vector<T> values(count);
  stream.copy(values.data(), data, count * sizeof(T));
  stream.synchronize();
  return values;
}

}  // namespace tessera::test
