// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn_descriptor.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::kernels::cuda::cudnn {
namespace {

Code code_of(cudnnStatus_t status) {
  if (CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED) return Code::not_supported;
  const bool memory = status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
                      status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
  return memory ? Code::out_of_memory : Code::cuda;
}

/// What cuDNN says about the last error of this thread, on one line.
std::string last_message() {
  std::array<char, 1024> text{};
  cudnnGetLastErrorString(text.data(), text.size());
  std::string message(text.data());
  std::ranges::replace(message, '\n', ' ');
  while (!message.empty() && message.back() == ' ') message.pop_back();
  return message;
}

}  // namespace

void check(cudnnStatus_t status, const std::string& what) {
  if (status == CUDNN_STATUS_SUCCESS) [[likely]]
    return;
  const std::string message = last_message();
  fail(code_of(status),
       fmt::format("cuDNN: {} failed: {} ({}){}{}", what, cudnnGetErrorString(status),
                   static_cast<int>(status), message.empty() ? "" : ": ", message));
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) : type_(type) {
  cudnnBackendDescriptor_t descriptor = nullptr;
  check(cudnnBackendCreateDescriptor(type, &descriptor),
        fmt::format("creating a descriptor of kind {}", static_cast<int>(type)));
  owned_.reset(descriptor);
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                            std::int64_t count, const void* values) {
  check(cudnnBackendSetAttribute(owned_.get(), name, type, count, values),
        fmt::format("setting attribute {}", static_cast<int>(name)));
  return *this;
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name,
                            const std::vector<Descriptor>& values) {
  std::vector<cudnnBackendDescriptor_t> descriptors;
  for (const Descriptor& value : values) descriptors.push_back(value.get());
  return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, std::ssize(descriptors), descriptors.data());
}

Descriptor& Descriptor::finalize() {
  check(cudnnBackendFinalize(owned_.get()),
        fmt::format("finalizing a descriptor of kind {}", static_cast<int>(type_)));
  return *this;
}

std::size_t Descriptor::get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                            std::int64_t most, void* values) const {
  std::int64_t count = 0;
  check(cudnnBackendGetAttribute(owned_.get(), name, type, most, &count, values),
        fmt::format("reading attribute {}", static_cast<int>(name)));
  return static_cast<std::size_t>(std::min(count, most));
}

std::vector<Descriptor> Descriptor::descriptors(cudnnBackendAttributeName_t name,
                                                cudnnBackendDescriptorType_t type,
                                                std::size_t most) const {
  std::vector<Descriptor> result;
  std::vector<cudnnBackendDescriptor_t> raw;
  while (result.size() < most) raw.push_back(result.emplace_back(type).get());
  const std::size_t count =
      get(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<std::int64_t>(most), raw.data());
  result.erase(result.begin() + static_cast<std::ptrdiff_t>(count), result.end());
  return result;
}

}  // namespace tessera::kernels::cuda::cudnn
