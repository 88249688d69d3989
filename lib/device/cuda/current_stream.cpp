// SPDX-License-Identifier: Apache-2.0
// New streams, and the stream that orders a thread's allocations.
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/device/cuda.hpp"

#include "device/cuda/cuda_stream.hpp"

namespace tessera {

namespace {

// One for each device and process; never destroyed, as buffers in statics may outlive everything.
Stream default_stream(Device device) {
  static auto* mutex = new std::mutex;
  static auto* streams = new std::map<int, Stream>;
  const std::lock_guard lock(*mutex);
  auto found = streams->find(device.index);
  if (found == streams->end()) found = streams->emplace(device.index, make_stream(device)).first;
  return found->second;
}

std::vector<Stream>& scopes() {
  thread_local std::vector<Stream> streams;
  return streams;
}

}  // namespace

Stream make_stream(Device device, StreamPriority priority) {
  if (device.is_cpu()) return {};
  TESSERA_CHECK(cuda_device_count() > 0, Code::not_supported,
                "there is no " + device.to_string() + ": " + cuda_unavailable_reason());
  TESSERA_CHECK(device.index >= 0 && device.index < cuda_device_count(), Code::invalid_argument,
                fmt::format("there is no {}: this process sees {} GPUs", device.to_string(),
                            cuda_device_count()));
  return Stream(device,
                std::make_shared<cuda::CudaStream>(device.index, priority == StreamPriority::high));
}

Stream current_stream(Device device) {
  if (device.is_cpu()) return {};
  const std::vector<Stream>& inner = scopes();
  for (auto stream = inner.rbegin(); stream != inner.rend(); ++stream)
    if (stream->device() == device) return *stream;
  return default_stream(device);
}

StreamScope::StreamScope(const Stream& stream) {
  scopes().push_back(stream);
}

StreamScope::~StreamScope() {
  scopes().pop_back();
}

}  // namespace tessera
