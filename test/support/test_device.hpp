// SPDX-License-Identifier: Apache-2.0
// Where a test computes: on the CPU, or on a GPU when TESSERA_TEST_DEVICE says cuda.
#pragma once

#include <cstdlib>
#include <string_view>

#include <gtest/gtest.h>

#include "tessera/device/cuda.hpp"

namespace tessera::testing {

inline bool on_cuda() {
  const char* device = std::getenv("TESSERA_TEST_DEVICE");
  return device != nullptr && std::string_view(device) == "cuda";
}

/// This rank's. Ranks share what GPUs there are.
inline Device test_device() {
  if (!on_cuda() || cuda_device_count() == 0) return {};
  const char* rank = std::getenv("OMPI_COMM_WORLD_LOCAL_RANK");
  return {DeviceType::cuda, rank == nullptr ? 0 : std::atoi(rank) % cuda_device_count()};
}

/// Skips every test when a GPU is asked for and there is none.
class NeedsDevice : public ::testing::Environment {
 public:
  void SetUp() override {
    if (on_cuda() && cuda_device_count() == 0) GTEST_SKIP() << cuda_unavailable_reason();
  }
};
inline const auto* const kNeedsDevice = ::testing::AddGlobalTestEnvironment(new NeedsDevice);

}  // namespace tessera::testing
