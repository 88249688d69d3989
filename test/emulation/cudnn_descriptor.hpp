// SPDX-License-Identifier: Apache-2.0
// Descriptors of the emulated cuDNN: which attributes each kind has, and what was set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <cudnn.h>
#include <map>
#include <memory>
#include <vector>

namespace tessera::emulation::cudnn {

struct Record;
using Reference = std::shared_ptr<const Record>;

struct Attribute {
  std::vector<std::byte> bytes;
  std::vector<Reference> references;
};

/// One descriptor. Others hold what they refer to: the caller's may be destroyed before.
struct Record {
  cudnnBackendDescriptorType_t type;
  bool finalized = false;
  std::map<cudnnBackendAttributeName_t, Attribute> attributes;

  bool has(cudnnBackendAttributeName_t name) const { return attributes.contains(name); }
  const Reference& reference(cudnnBackendAttributeName_t name) const {
    return attributes.at(name).references.front();
  }
  template <typename T>
  std::vector<T> values(cudnnBackendAttributeName_t name) const {
    const auto& bytes = attributes.at(name).bytes;
    std::vector<T> result(bytes.size() / sizeof(T));
    std::memcpy(result.data(), bytes.data(), bytes.size());
    return result;
  }
  template <typename T>
  T value(cudnnBackendAttributeName_t name, T otherwise = T{}) const {
    if (!has(name)) return otherwise;
    std::memcpy(&otherwise, attributes.at(name).bytes.data(), sizeof(T));
    return otherwise;
  }
};

/// False: there is no such kind here.
bool known(cudnnBackendDescriptorType_t type);

/// Refuses what the kind does not have, other types and counts, and references to descriptors of
/// other kinds or not finalized.
cudnnStatus_t set(Record& record, cudnnBackendAttributeName_t name,
                  cudnnBackendAttributeType_t type, std::int64_t count, const void* values);

/// Everything that the kind needs was set.
bool complete(const Record& record);

/// What a caller's descriptor stands for; nullptr for anything else.
std::shared_ptr<Record> record_of(cudnnBackendDescriptor_t descriptor);

}  // namespace tessera::emulation::cudnn
