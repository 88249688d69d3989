// SPDX-License-Identifier: Apache-2.0
// Where a test computes: on the CPU, or on a GPU when TESSERA_TEST_DEVICE says cuda.
#pragma once

#include <cstdlib>
#include <string_view>

#include <gtest/gtest.h>

#include "tessera/device/cuda.hpp"

#include "support/cuda_testing.hpp"

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

/// Without a GPU that is asked for every test is left out, or fails where one is sure to be there.
class NeedsDevice : public ::testing::Environment {
 public:
  void SetUp() override {
    if (on_cuda()) TESSERA_NEEDS_GPU();
  }
};
inline const auto* const kNeedsDevice = ::testing::AddGlobalTestEnvironment(new NeedsDevice);

}  // namespace tessera::testing
