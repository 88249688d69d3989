// SPDX-License-Identifier: Apache-2.0
// The current device of the calling thread, put back as it was.
#pragma once

#include <cuda_runtime_api.h>

#include "device/cuda/check.hpp"

namespace tessera::cuda {

/// Makes device `index` the calling thread's while it lives. The user's own choice stays: this
/// library may be linked into a code that has one.
class DeviceGuard {
 public:
  explicit DeviceGuard(int index) : index_(index) {
    check_cuda(cudaGetDevice(&before_), "asking for the current device");
    if (before_ != index_) check_cuda(cudaSetDevice(index_), "choosing the device");
  }
  ~DeviceGuard() {
    if (before_ != index_) warn_cuda(cudaSetDevice(before_), "choosing the device");
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int index_;
  int before_ = 0;
};

}  // namespace tessera::cuda
