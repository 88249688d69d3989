// SPDX-License-Identifier: Apache-2.0
// Arrays of a caller of the C interface on the device under test.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include "tessera/device/buffer.hpp"
#include "tessera/device/cuda.hpp"

#include "c/support.hpp"
#include "support/test_device.hpp"

namespace tessera::c::testing {

inline tessera_device device_of(Device device) {
  return {device.is_cpu() ? TESSERA_CPU : TESSERA_CUDA_DEVICE, device.index};
}

/// Numbers that a test computes on the host, lent on a device: on the CPU where they are, else in a
/// copy, which put() and fetch() move over a stream that the library does not know.
template <typename T>
class Placed {
 public:
  explicit Placed(std::vector<T> numbers, Device device = tessera::testing::test_device())
      : values(std::move(numbers)), stream_(make_stream(device)) {
    if (device.is_cpu()) return;
    const StreamScope scope(stream_);
    copy_ = allocate(values.size() * sizeof(T), device, Purpose::workspace);
    put();
  }
  Placed(const Placed&) = delete;
  Placed& operator=(const Placed&) = delete;

  void put() const { move(copy_.data(), values.data()); }
  void fetch() { move(values.data(), copy_.data()); }
  tessera_array array(std::initializer_list<std::int64_t> dims) {
    tessera_array described = array_of(data(), dims);
    described.device = device_of(stream_.device());
    return described;
  }
  tessera_array array() { return array({static_cast<std::int64_t>(values.size())}); }
  T* data() { return copy_ ? copy_.as<T>() : values.data(); }

  std::vector<T> values;

 private:
  void move(void* target, const void* source) const {
    if (!copy_) return;
    stream_.copy(target, source, copy_.bytes());
    stream_.synchronize();
  }

  Stream stream_;
  Buffer copy_;
};

}  // namespace tessera::c::testing
