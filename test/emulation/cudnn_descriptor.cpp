// SPDX-License-Identifier: Apache-2.0
#include "emulation/cudnn_descriptor.hpp"

#include <algorithm>
#include <span>

namespace tessera::emulation::cudnn {
namespace {

constexpr std::int64_t kMany = 64;

struct Rule {
  cudnnBackendAttributeName_t name;
  cudnnBackendAttributeType_t type;
  std::int64_t least = 1, most = 1;  // elements
  bool required = true;
  std::vector<cudnnBackendDescriptorType_t> kinds = {};  // of descriptors referred to
};

Rule refers(cudnnBackendAttributeName_t name, cudnnBackendDescriptorType_t kind,
            bool required = true) {
  return {name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, required, {kind}};
}
Rule tensor(cudnnBackendAttributeName_t name, bool required = true) {
  return refers(name, CUDNN_BACKEND_TENSOR_DESCRIPTOR, required);
}

using Rules = std::map<cudnnBackendDescriptorType_t, std::vector<Rule>>;

void add_values(Rules& rules) {
  rules[CUDNN_BACKEND_TENSOR_DESCRIPTOR] = {
      {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64},
      {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE},
      {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, 4},
      {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, 4},
      {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64},
      {CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, 1, false},
      {CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, 1, false}};
  rules[CUDNN_BACKEND_MATMUL_DESCRIPTOR] = {{CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE}};
  rules[CUDNN_BACKEND_POINTWISE_DESCRIPTOR] = {
      {CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE},
      {CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE},
      {CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, 1, false}};
  rules[CUDNN_BACKEND_REDUCTION_DESCRIPTOR] = {
      {CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE},
      {CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE}};
}

void add_operations(Rules& rules) {
  rules[CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR] = {
      tensor(CUDNN_ATTR_OPERATION_MATMUL_ADESC),
      tensor(CUDNN_ATTR_OPERATION_MATMUL_BDESC),
      tensor(CUDNN_ATTR_OPERATION_MATMUL_CDESC),
      refers(CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_BACKEND_MATMUL_DESCRIPTOR),
      tensor(CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, false),
      tensor(CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, false),
      tensor(CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, false)};
  rules[CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR] = {
      refers(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_BACKEND_POINTWISE_DESCRIPTOR),
      tensor(CUDNN_ATTR_OPERATION_POINTWISE_XDESC), tensor(CUDNN_ATTR_OPERATION_POINTWISE_YDESC),
      tensor(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, false),
      tensor(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, false)};
  rules[CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR] = {
      tensor(CUDNN_ATTR_OPERATION_REDUCTION_XDESC), tensor(CUDNN_ATTR_OPERATION_REDUCTION_YDESC),
      refers(CUDNN_ATTR_OPERATION_REDUCTION_DESC, CUDNN_BACKEND_REDUCTION_DESCRIPTOR)};
  rules[CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR] = {tensor(CUDNN_ATTR_OPERATION_RESHAPE_XDESC),
                                                       tensor(CUDNN_ATTR_OPERATION_RESHAPE_YDESC)};
}

void add_plans(Rules& rules) {
  rules[CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR] = {
      // Deprecated, and what names the device where there is one.
      {static_cast<cudnnBackendAttributeName_t>(800), CUDNN_TYPE_HANDLE},
      {CUDNN_ATTR_OPERATIONGRAPH_OPS,
       CUDNN_TYPE_BACKEND_DESCRIPTOR,
       1,
       kMany,
       true,
       {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
        CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR}}};
  rules[CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR] = {
      refers(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR),
      {CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE}};
  rules[CUDNN_BACKEND_ENGINECFG_DESCRIPTOR] = {};  // the heuristic fills it
  rules[CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR] = {
      refers(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)};
  rules[CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR] = {
      {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 1, kMany},
      {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 1, kMany},
      {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR}};
}

const Rules& rules() {
  static const Rules all = [] {
    Rules result;
    add_values(result);
    add_operations(result);
    add_plans(result);
    return result;
  }();
  return all;
}

std::size_t size_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_BOOLEAN:
      return sizeof(bool);
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_HANDLE:
      return 8;
    default:
      return sizeof(int);  // enumerations
  }
}

cudnnStatus_t set_references(Attribute& attribute, const Rule& rule, std::int64_t count,
                             const void* values) {
  const auto* descriptors = static_cast<const cudnnBackendDescriptor_t*>(values);
  for (const cudnnBackendDescriptor_t descriptor :
       std::span(descriptors, static_cast<std::size_t>(count))) {
    const auto record = record_of(descriptor);
    if (record == nullptr) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
    if (!record->finalized) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
    if (std::ranges::count(rule.kinds, record->type) == 0)
      return CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE;
    attribute.references.push_back(record);
  }
  return CUDNN_STATUS_SUCCESS;
}

}  // namespace

bool known(cudnnBackendDescriptorType_t type) {
  return rules().contains(type);
}

cudnnStatus_t set(Record& record, cudnnBackendAttributeName_t name,
                  cudnnBackendAttributeType_t type, std::int64_t count, const void* values) {
  const auto& allowed = rules().at(record.type);
  const auto rule = std::ranges::find(allowed, name, &Rule::name);
  if (record.finalized || rule == allowed.end()) return CUDNN_STATUS_BAD_PARAM;
  if (rule->type != type) return CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE;
  if (count < rule->least || count > rule->most) return CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT;
  if (values == nullptr) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
  Attribute attribute;
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    const cudnnStatus_t status = set_references(attribute, *rule, count, values);
    if (status != CUDNN_STATUS_SUCCESS) return status;
  } else {
    const auto* bytes = static_cast<const std::byte*>(values);
    attribute.bytes.assign(bytes, bytes + static_cast<std::size_t>(count) * size_of(type));
  }
  record.attributes[name] = std::move(attribute);
  return CUDNN_STATUS_SUCCESS;
}

bool complete(const Record& record) {
  return std::ranges::all_of(rules().at(record.type), [&](const Rule& rule) {
    return !rule.required || record.has(rule.name);
  });
}

}  // namespace tessera::emulation::cudnn
