// SPDX-License-Identifier: Apache-2.0
#include "tessera/device/buffer.hpp"

#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/number_format.hpp"

#include "device/cpu/host_cache.hpp"
#include "device/cuda/device_pool.hpp"

namespace tessera {

Buffer::Buffer(void* data, std::size_t bytes, Device device, Purpose purpose, Release release)
    : data_(data), bytes_(bytes), device_(device), purpose_(purpose), release_(std::move(release)) {
  memory_ledger(device_).add(purpose_, bytes_);
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  memory_ledger(device_).remove(purpose_, bytes_);
  if (release_) release_(data_, bytes_);
}

Buffer allocate(std::size_t bytes, Device device, Purpose purpose) {
  if (bytes == 0) return {};
  if (!device.is_cpu()) return cuda::allocate_device(bytes, device, purpose);
  void* data = host_cache().allocate(bytes);
  TESSERA_CHECK(data != nullptr, Code::out_of_memory,
                fmt::format("could not allocate {} for {} on {}. In use by this rank:\n{}",
                            format_bytes(static_cast<double>(bytes)), to_string(purpose),
                            device.to_string(), memory_ledger(device).to_string()));
  return Buffer(data, bytes, device, purpose,
                [](void* block, std::size_t size) { host_cache().release(block, size); });
}

void release_cached_memory(Device device) {
  device.is_cpu() ? host_cache().trim() : cuda::trim_device(device);
}

}  // namespace tessera
