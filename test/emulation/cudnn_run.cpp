// SPDX-License-Identifier: Apache-2.0
#include "emulation/cudnn_run.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <limits>

#include "emulation/emulation.hpp"
#include "emulation/memory.hpp"

namespace tessera::emulation::cudnn {
namespace {

std::int64_t size_of(cudnnDataType_t type) {
  return type == CUDNN_DATA_FLOAT || type == CUDNN_DATA_INT32 ? 4 : 2;
}

/// As it is after it was stored in the type.
float rounded(cudnnDataType_t type, float value) {
  if (type == CUDNN_DATA_BFLOAT16) return __bfloat162float(__float2bfloat16_rn(value));
  if (type == CUDNN_DATA_HALF) return __half2float(__float2half_rn(value));
  return value;
}

float read(cudnnDataType_t type, const void* data, std::int64_t i) {
  if (type == CUDNN_DATA_BFLOAT16)
    return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
  if (type == CUDNN_DATA_HALF) return __half2float(static_cast<const __half*>(data)[i]);
  if (type == CUDNN_DATA_INT32)
    return static_cast<float>(static_cast<const std::int32_t*>(data)[i]);
  return static_cast<const float*>(data)[i];
}
void write(cudnnDataType_t type, void* data, std::int64_t i, float value) {
  if (type == CUDNN_DATA_BFLOAT16)
    static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(value);
  else if (type == CUDNN_DATA_HALF)
    static_cast<__half*>(data)[i] = __float2half_rn(value);
  else
    static_cast<float*>(data)[i] = value;
}

/// Calls body(indices, place), place counting the elements in order.
template <typename Body>
void for_each(const Extents& sizes, Body&& body) {
  Extents at{};
  std::int64_t place = 0;
  for (at[0] = 0; at[0] < sizes[0]; ++at[0])
    for (at[1] = 0; at[1] < sizes[1]; ++at[1])
      for (at[2] = 0; at[2] < sizes[2]; ++at[2])
        for (at[3] = 0; at[3] < sizes[3]; ++at[3]) body(at, static_cast<std::size_t>(place++));
}

/// Where an element of contents in order is: sides of 1 are repeated, heads shared by groups.
std::size_t place_of(const Extents& at, const Extents& sizes, std::int64_t heads) {
  std::int64_t place = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    std::int64_t index = sizes[i] == 1 ? 0 : at[i];
    if (i == 1 && sizes[1] != heads) index = at[1] / (heads / sizes[1]);
    place = place * sizes[i] + index;
  }
  return static_cast<std::size_t>(place);
}

float pointwise(cudnnPointwiseMode_t mode, float x, float b, bool condition) {
  switch (mode) {
    case CUDNN_POINTWISE_EXP:
      return std::exp(x);
    case CUDNN_POINTWISE_LOG:
      return std::log(x);
    case CUDNN_POINTWISE_ADD:
      return x + b;
    case CUDNN_POINTWISE_SUB:
      return x - b;
    case CUDNN_POINTWISE_MUL:
      return x * b;
    case CUDNN_POINTWISE_DIV:
      return x / b;
    case CUDNN_POINTWISE_CMP_GE:
      return x >= b ? 1.0f : 0.0f;
    case CUDNN_POINTWISE_CMP_LT:
      return x < b ? 1.0f : 0.0f;
    case CUDNN_POINTWISE_LOGICAL_AND:
      return x != 0 && b != 0 ? 1.0f : 0.0f;
    default:
      return condition ? x : b;
  }
}

/// Tensor cores take 16-bit factors: what is wider is rounded to the type of the right one.
std::vector<float> matmul(const Value& a, std::vector<float> left, const Value& b,
                          const std::vector<float>& right, const Value& c) {
  for (float& factor : left) factor = rounded(b.type, factor);
  std::vector<float> result(static_cast<std::size_t>(c.elements()));
  const std::int64_t depth = a.sizes[3];
  for_each(c.sizes, [&](const Extents& at, std::size_t place) {
    const float* row = left.data() + place_of({at[0], at[1], at[2], 0}, a.sizes, a.sizes[1]);
    const float* column = right.data() + place_of({at[0], at[1], 0, at[3]}, b.sizes, c.sizes[1]);
    float sum = 0;
    for (std::int64_t i = 0; i < depth; ++i) sum += row[i] * column[i * b.sizes[3]];
    result[place] = sum;
  });
  return result;
}

std::vector<float> reduce(cudnnReduceTensorOp_t operation, const Value& x,
                          const std::vector<float>& contents, const Value& y) {
  const bool sums = operation == CUDNN_REDUCE_TENSOR_ADD;
  std::vector<float> result(static_cast<std::size_t>(y.elements()),
                            sums ? 0.0f : -std::numeric_limits<float>::infinity());
  for_each(x.sizes, [&](const Extents& at, std::size_t place) {
    float& target = result[place_of(at, y.sizes, x.sizes[1])];
    // A NaN stays.
    if (sums)
      target += contents[place];
    else if (!(contents[place] <= target))
      target = contents[place];
  });
  return result;
}

}  // namespace

std::string Execution::name() const {
  return "cudnnBackendExecute of " + std::to_string(graph.operations.size()) + " operations";
}

bool Execution::reachable(const std::string& what, const void* data, std::int64_t bytes) const {
  const auto allocation = find_allocation(data);
  const auto* begin = static_cast<const std::byte*>(data);
  if (allocation && allocation->stage == Allocation::Stage::live &&
      begin + bytes <= allocation->begin + allocation->bytes)
    return true;
  report_fault(FaultKind::memory, name() + ": " + what + " of " + std::to_string(bytes) +
                                      " bytes begins " + describe_address(data));
  return false;
}

bool Execution::all_reachable() const {
  for (const auto& [number, data] : arrays) {
    const Value& value = graph.values.at(number);
    std::int64_t last = 0;
    for (std::size_t i = 0; i < 4; ++i) last += (value.sizes[i] - 1) * value.strides[i];
    if (!reachable("value " + std::to_string(number), data, (last + 1) * size_of(value.type)))
      return false;
  }
  return reachable("workspace", workspace, workspace_of(graph));
}

Execution::Contents Execution::load(const Value& value) const {
  if (value.by_value) return {scalars.at(value.number)};
  const void* data = arrays.at(value.number);
  Contents contents(static_cast<std::size_t>(value.elements()));
  for_each(value.sizes, [&](const Extents& at, std::size_t place) {
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < 4; ++i) offset += at[i] * value.strides[i];
    contents[place] = read(value.type, data, offset);
  });
  return contents;
}

bool Execution::lengths_in_range() const {
  const Value* lengths = lengths_of(graph);
  if (lengths == nullptr) return true;
  const std::int64_t most = scores_of(graph).sizes[2];
  const auto fits = [&](float length) { return length >= 0 && length <= static_cast<float>(most); };
  if (std::ranges::all_of(load(*lengths), fits)) return true;
  report_fault(FaultKind::memory, name() + ": a length is not in 0.." + std::to_string(most));
  return false;
}

void Execution::store(const Value& value, Contents contents) const {
  void* data = arrays.at(value.number);
  if (const Value* lengths = lengths_of(graph)) {
    const Contents most = load(*lengths);
    for_each(value.sizes, [&](const Extents& at, std::size_t place) {
      if (static_cast<float>(at[2]) >= most[static_cast<std::size_t>(at[0])])
        contents[place] = std::numeric_limits<float>::quiet_NaN();
    });
  }
  for_each(value.sizes, [&](const Extents& at, std::size_t place) {
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < 4; ++i) offset += at[i] * value.strides[i];
    write(value.type, data, offset, contents[place]);
  });
}

Execution::Contents Execution::evaluate(const Operation& operation,
                                        const std::map<std::int64_t, Contents>& computed) const {
  const Value& y = graph.values.at(operation.output);
  const auto value = [&](std::size_t i) -> const Value& {
    return graph.values.at(operation.inputs[i]);
  };
  const auto contents = [&](std::size_t i) -> const Contents& {
    return computed.at(operation.inputs[i]);
  };
  if (operation.kind == Operation::Kind::matmul)
    return matmul(value(0), contents(0), value(1), contents(1), y);
  if (operation.kind == Operation::Kind::reduction)
    return reduce(operation.reduction, value(0), contents(0), y);
  Contents result(static_cast<std::size_t>(y.elements()));
  for_each(y.sizes, [&](const Extents& at, std::size_t place) {
    const auto input = [&](std::size_t i) {
      return i < operation.inputs.size()
                 ? contents(i)[place_of(at, value(i).sizes, value(i).sizes[1])]
                 : 0.0f;
    };
    if (operation.kind == Operation::Kind::reshape)
      result[place] =
          contents(0)[place_of({at[0], at[1], at[3], at[2]}, value(0).sizes, y.sizes[1])];
    else if (operation.mode == CUDNN_POINTWISE_GEN_INDEX)
      result[place] = static_cast<float>(at[static_cast<std::size_t>(operation.axis)]);
    else
      result[place] = pointwise(operation.mode, input(0), input(1), input(2) != 0);
  });
  return result;
}

void Execution::run() const {
  if (!all_reachable() || !lengths_in_range()) return;
  // Whoever shares a workspace between streams shall see it.
  std::memset(workspace, 0xff, static_cast<std::size_t>(workspace_of(graph)));
  std::map<std::int64_t, Contents> computed;
  for (const Operation& operation : graph.operations) {
    for (const std::int64_t input : operation.inputs)
      if (!computed.contains(input)) computed[input] = load(graph.values.at(input));
    const Value& y = graph.values.at(operation.output);
    Contents contents = evaluate(operation, computed);
    for (float& element : contents) element = rounded(y.type, element);
    if (!y.is_virtual) store(y, contents);
    computed[operation.output] = std::move(contents);
  }
}

}  // namespace tessera::emulation::cudnn
