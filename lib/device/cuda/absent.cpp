// SPDX-License-Identifier: Apache-2.0
// GPUs in a build without CUDA: there are none.
#include "tessera/base/error.hpp"
#include "tessera/device/arena.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/device/graph.hpp"

#include "device/cuda/device_pool.hpp"

namespace tessera {

namespace {

[[noreturn]] void no_graphs() {
  fail(Code::not_supported, "graphs are for GPUs: " + cuda_unavailable_reason());
}

[[noreturn]] void no_device(Device device) {
  fail(Code::not_supported, "there is no " + device.to_string() + ": " + cuda_unavailable_reason());
}

}  // namespace

int cuda_device_count() {
  return 0;
}

std::string cuda_unavailable_reason() {
  return "this build has no CUDA backend (configure with TESSERA_ENABLE_CUDA=on)";
}

std::string cuda_build_version() {
  return "";
}

std::string cuda_driver_version() {
  return "";
}

CudaDeviceInfo describe_cuda_device(Device device) {
  no_device(device);
}

Device device_of_address(const void*) {
  return {};
}

Device choose_cuda_device(int, int) {
  fail(Code::not_supported, "device: cuda needs a GPU: " + cuda_unavailable_reason());
}

Stream make_stream(Device device, StreamPriority) {
  if (!device.is_cpu()) no_device(device);
  return {};
}

Stream current_stream(Device device) {
  if (!device.is_cpu()) no_device(device);
  return {};
}

StreamScope::StreamScope(const Stream&) {}
StreamScope::~StreamScope() = default;

Buffer allocate_pinned(std::size_t bytes, Purpose purpose) {
  return allocate(bytes, Device{}, purpose);
}

Buffer allocate_pinned(std::size_t bytes, Purpose purpose, const Stream&) {
  return allocate_pinned(bytes, purpose);
}

// ---- graphs: none is ever recorded ----

void Graph::launch(const Stream&) const {
  no_graphs();
}

Capture::Capture(const Stream&) {
  no_graphs();
}

Capture::~Capture() = default;

Graph Capture::finish() {
  no_graphs();
}

Arena::Arena(const Stream&) {
  no_graphs();
}

Arena::Scope::Scope(const Arena&) {}
Arena::Scope::~Scope() = default;

namespace cuda {

Buffer allocate_device(std::size_t, Device device, Purpose) {
  no_device(device);
}

void trim_device(Device device) {
  no_device(device);
}

}  // namespace cuda

}  // namespace tessera
