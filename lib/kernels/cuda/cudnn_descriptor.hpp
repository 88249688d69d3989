// SPDX-License-Identifier: Apache-2.0
// Descriptors of cuDNN's backend interface: owned, set by the type of the value, checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cudnn.h>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace tessera::kernels::cuda::cudnn {

/// Throws for anything but success: Code::not_supported where cuDNN says that it cannot,
/// Code::out_of_memory, else Code::cuda.
void check(cudnnStatus_t status, const std::string& what);

template <typename T>
consteval cudnnBackendAttributeType_t attribute_type() {
  if constexpr (std::is_same_v<T, bool>) return CUDNN_TYPE_BOOLEAN;
  if constexpr (std::is_same_v<T, std::int64_t>) return CUDNN_TYPE_INT64;
  if constexpr (std::is_same_v<T, float>) return CUDNN_TYPE_FLOAT;
  if constexpr (std::is_same_v<T, char>) return CUDNN_TYPE_CHAR;
  if constexpr (std::is_same_v<T, void*>) return CUDNN_TYPE_VOID_PTR;
  if constexpr (std::is_same_v<T, cudnnHandle_t>) return CUDNN_TYPE_HANDLE;
  if constexpr (std::is_same_v<T, cudnnDataType_t>) return CUDNN_TYPE_DATA_TYPE;
  if constexpr (std::is_same_v<T, cudnnPointwiseMode_t>) return CUDNN_TYPE_POINTWISE_MODE;
  if constexpr (std::is_same_v<T, cudnnReduceTensorOp_t>) return CUDNN_TYPE_REDUCTION_OPERATOR_TYPE;
  if constexpr (std::is_same_v<T, cudnnBackendHeurMode_t>) return CUDNN_TYPE_HEUR_MODE;
  if constexpr (std::is_same_v<T, cudnnBackendKnobType_t>) return CUDNN_TYPE_KNOB_TYPE;
  if constexpr (std::is_same_v<T, cudnnBackendNumericalNote_t>) return CUDNN_TYPE_NUMERICAL_NOTE;
}

/// Set, then finalized; others refer to it by get() and need it alive until they are finalized.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type);

  cudnnBackendDescriptor_t get() const { return owned_.get(); }

  template <typename T>
  Descriptor& set(cudnnBackendAttributeName_t name, const T& value) {
    return set(name, attribute_type<T>(), 1, &value);
  }
  template <typename T>
  Descriptor& set(cudnnBackendAttributeName_t name, std::span<const T> values) {
    return set(name, attribute_type<T>(), std::ssize(values), values.data());
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& value) {
    const cudnnBackendDescriptor_t descriptor = value.get();
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &descriptor);
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const std::vector<Descriptor>& values);
  Descriptor& finalize();

  template <typename T>
  T value(cudnnBackendAttributeName_t name) const {
    T result{};
    get(name, attribute_type<T>(), 1, &result);
    return result;
  }
  template <typename T>
  std::vector<T> values(cudnnBackendAttributeName_t name, std::size_t most) const {
    std::vector<T> result(most);
    result.resize(get(name, attribute_type<T>(), static_cast<std::int64_t>(most), result.data()));
    return result;
  }
  /// What the attribute refers to, at most `most` descriptors of `type`.
  std::vector<Descriptor> descriptors(cudnnBackendAttributeName_t name,
                                      cudnnBackendDescriptorType_t type, std::size_t most) const;

 private:
  struct Destroy {
    void operator()(void* descriptor) const noexcept { cudnnBackendDestroyDescriptor(descriptor); }
  };
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                  std::int64_t count, const void* values);
  std::size_t get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                  std::int64_t most, void* values) const;

  cudnnBackendDescriptorType_t type_;
  std::unique_ptr<void, Destroy> owned_;
};

}  // namespace tessera::kernels::cuda::cudnn
