// SPDX-License-Identifier: Apache-2.0
// The functions of cuDNN that the library uses, on the host: graphs are checked as strictly as the
// original may, and run on emulated streams.
#include "emulation/cudnn.hpp"

#include <atomic>
#include <cstdio>
#include <cudnn.h>
#include <optional>
#include <set>
#include <span>

#include "emulation/cudnn_descriptor.hpp"
#include "emulation/cudnn_run.hpp"
#include "emulation/device_state.hpp"
#include "emulation/memory.hpp"
#include "emulation/streams.hpp"

struct cudnnContext {
  int device;
  cudaStream_t stream = nullptr;
};

namespace tessera::emulation {
namespace {

std::atomic<std::int64_t> executions{0}, plans{0}, unused_workspace{0};
std::atomic<bool> refusing{false};

}  // namespace

std::int64_t cudnn_executions() {
  return executions;
}
std::int64_t cudnn_plans() {
  return plans;
}
void refuse_cudnn_graphs(bool refuse) {
  refusing = refuse;
}
void inflate_cudnn_workspace(std::int64_t bytes) {
  unused_workspace = bytes;
}

namespace cudnn {
namespace {

constexpr std::uint64_t kMark = 0x6375646e6e5f5f31;

// What a caller's pointer points to.
struct Owner {
  std::uint64_t mark = kMark;
  std::shared_ptr<Record> record;
};

cudnnStatus_t bad_parameter_unless(bool valid) {
  return valid ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM;
}

const Record& graph_record(const Record& plan) {
  const Record& configuration = *plan.reference(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
  return *configuration.reference(CUDNN_ATTR_ENGINECFG_ENGINE);
}

cudnnStatus_t finalize(Record& record) {
  if (record.finalized || !complete(record)) return CUDNN_STATUS_BAD_PARAM;
  switch (record.type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
      return bad_parameter_unless(value_of(record).has_value());
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
      return bad_parameter_unless(operation_of(record).has_value());
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
      return bad_parameter_unless(graph_of(record).has_value());
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
      ++plans;
      return CUDNN_STATUS_SUCCESS;
    default:
      return CUDNN_STATUS_SUCCESS;
  }
}

/// One engine, where there is one for the graph and room for it.
cudnnStatus_t find_engines(const Record& heuristic, std::int64_t room, std::int64_t* count,
                           void* results) {
  const Reference& graph = heuristic.reference(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
  *count = !refusing && supported(*graph_of(*graph)) ? 1 : 0;
  if (room < 1 || *count == 0) return CUDNN_STATUS_SUCCESS;
  const auto configuration = record_of(*static_cast<cudnnBackendDescriptor_t*>(results));
  if (configuration == nullptr || configuration->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)
    return CUDNN_STATUS_BAD_PARAM;
  configuration->attributes[CUDNN_ATTR_ENGINECFG_ENGINE].references = {graph};
  configuration->finalized = true;
  return CUDNN_STATUS_SUCCESS;
}

/// Arrays lie on the device, scalars on the host, and there is one of each that the graph names.
std::optional<Execution> execution_of(const Record& plan, const Record& pack) {
  Execution execution{
      *graph_of(graph_record(plan)), {}, {}, pack.value<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE)};
  const auto numbers = pack.values<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  const auto places = pack.values<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  if (numbers.size() != places.size()) return std::nullopt;
  std::set<std::int64_t> wanted;
  for (const auto& [number, value] : execution.graph.values)
    if (!value.is_virtual) wanted.insert(number);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (wanted.erase(numbers[i]) == 0 || places[i] == nullptr) return std::nullopt;
    const Value& value = execution.graph.values.at(numbers[i]);
    if (!value.by_value) {
      if (reinterpret_cast<std::uintptr_t>(places[i]) % 16 != 0) return std::nullopt;
      execution.arrays[value.number] = places[i];
      continue;
    }
    if (is_emulated_memory(places[i])) return std::nullopt;
    execution.scalars[value.number] =
        value.type == CUDNN_DATA_INT32
            ? static_cast<float>(*static_cast<const std::int32_t*>(places[i]))
            : *static_cast<const float*>(places[i]);
  }
  return wanted.empty() ? std::optional(execution) : std::nullopt;
}

}  // namespace

std::shared_ptr<Record> record_of(cudnnBackendDescriptor_t descriptor) {
  const auto* owner = static_cast<const Owner*>(descriptor);
  return owner != nullptr && owner->mark == kMark ? owner->record : nullptr;
}

}  // namespace cudnn
}  // namespace tessera::emulation

using namespace tessera::emulation;
using namespace tessera::emulation::cudnn;

extern "C" {

std::size_t cudnnGetVersion(void) {
  return CUDNN_VERSION;
}

const char* cudnnGetErrorString(cudnnStatus_t status) {
  return status == CUDNN_STATUS_SUCCESS ? "CUDNN_STATUS_SUCCESS" : "CUDNN_STATUS_BAD_PARAM";
}

void cudnnGetLastErrorString(char* message, std::size_t size) {
  std::snprintf(message, size, "%s", "");
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  if (handle == nullptr) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  *handle = new cudnnContext{current_device()};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  const Guard guard(mutex());
  if (handle == nullptr || !usable(stream, "cudnnSetStream")) return CUDNN_STATUS_BAD_PARAM;
  if (device_of(stream) != handle->device) return CUDNN_STATUS_BAD_PARAM_STREAM_MISMATCH;
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t* descriptor) {
  if (descriptor == nullptr || !known(type)) return CUDNN_STATUS_NOT_SUPPORTED;
  *descriptor =
      new Owner{.record = std::make_shared<Record>(Record{.type = type, .attributes = {}})};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  if (record_of(descriptor) == nullptr) return CUDNN_STATUS_BAD_PARAM;
  auto* owner = static_cast<Owner*>(descriptor);
  owner->mark = 0;
  delete owner;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, std::int64_t count,
                                       const void* values) {
  const auto record = record_of(descriptor);
  return record == nullptr ? CUDNN_STATUS_BAD_PARAM : set(*record, name, type, count, values);
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  const auto record = record_of(descriptor);
  if (record == nullptr) return CUDNN_STATUS_BAD_PARAM;
  const cudnnStatus_t status = finalize(*record);
  record->finalized = status == CUDNN_STATUS_SUCCESS;
  return status;
}

cudnnStatus_t cudnnBackendGetAttribute(const cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, std::int64_t room,
                                       std::int64_t* count, void* values) {
  const auto record = record_of(descriptor);
  if (record == nullptr || count == nullptr) return CUDNN_STATUS_BAD_PARAM;
  if (!record->finalized) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
  if (record->type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR &&
      name == CUDNN_ATTR_ENGINEHEUR_RESULTS && type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
    return find_engines(*record, room, count, values);
  if (record->type != CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR ||
      name != CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE || type != CUDNN_TYPE_INT64 || room != 1)
    return CUDNN_STATUS_BAD_PARAM;
  *count = 1;
  *static_cast<std::int64_t*>(values) =
      workspace_of(*graph_of(graph_record(*record))) + unused_workspace;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack) {
  const auto plan_record = record_of(plan), pack_record = record_of(pack);
  if (handle == nullptr || plan_record == nullptr || pack_record == nullptr ||
      plan_record->type != CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR ||
      pack_record->type != CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)
    return CUDNN_STATUS_BAD_PARAM;
  if (!plan_record->finalized || !pack_record->finalized)
    return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
  const auto execution = execution_of(*plan_record, *pack_record);
  if (!execution || execution->graph.handle != handle) return CUDNN_STATUS_BAD_PARAM;
  const Guard guard(mutex());
  if (!usable(handle->stream, "cudnnBackendExecute")) return CUDNN_STATUS_EXECUTION_FAILED;
  const cudaError_t result = enqueue(handle->stream, execution->name(), [execution = *execution] {
    execution.run();
    return true;
  });
  ++executions;
  return result == cudaSuccess ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
