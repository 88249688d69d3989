// SPDX-License-Identifier: Apache-2.0
// Tests that run on the CPU and, where there is one, on a GPU: the test's arrays in the memory of
// the device.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "tessera/device/buffer.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/device/stream.hpp"

#include "support/kernel_testing.hpp"

namespace tessera::testing {

/// The CPU, and a GPU where there is one.
inline std::vector<Device> kernel_devices() {
  std::vector<Device> devices{Device{}};
  if (cuda_device_count() > 0) devices.push_back({DeviceType::cuda, 0});
  return devices;
}
/// For names of tests: "cpu" or "cuda".
inline std::string device_name(Device device) {
  return device.is_cpu() ? "cpu" : "cuda";
}

/// Where a kernel finds host arrays: on the CPU where they are, else in copies, which fetch()
/// brings back. Copies have the size of the array and not a byte more.
class DeviceArrays {
 public:
  explicit DeviceArrays(Device device) : stream_(make_stream(device)) {}
  DeviceArrays(const DeviceArrays&) = delete;
  DeviceArrays& operator=(const DeviceArrays&) = delete;

  const Stream& stream() const { return stream_; }

  /// Pointer for kernels to the array, which must outlive this; the same for every call.
  template <typename Array>
  auto at(Array& array) -> decltype(array.data()) {
    if (stream_.device().is_cpu() || array.size() == 0) return array.data();
    for (const Copy& copy : copies_)
      if (copy.host == array.data()) return copy.device.data();
    const StreamScope scope(stream_);
    const std::size_t bytes = array.size() * size_of(array.dtype());
    copies_.push_back({const_cast<void*>(static_cast<const void*>(array.data())),
                       allocate(bytes, stream_.device(), Purpose::workspace)});
    stream_.copy(copies_.back().device.data(), array.data(), bytes);
    return copies_.back().device.data();
  }
  /// Waits, and makes the host arrays what the kernels left.
  void fetch() {
    for (const Copy& copy : copies_)
      stream_.copy(copy.host, copy.device.data(), copy.device.bytes());
    stream_.synchronize();
  }

 private:
  struct Copy {
    void* host;
    Buffer device;
  };
  Stream stream_;
  std::deque<Copy> copies_;
};

}  // namespace tessera::testing
