// SPDX-License-Identifier: Apache-2.0
// Graphs of the emulated cuDNN: what its operations say, and which of them it takes.
#pragma once

#include <array>
#include <cstdint>
#include <cudnn.h>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "emulation/cudnn_descriptor.hpp"

namespace tessera::emulation::cudnn {

using Extents = std::array<std::int64_t, 4>;

struct Value {
  std::int64_t number;
  cudnnDataType_t type;
  Extents sizes, strides;
  std::int64_t alignment;
  bool is_virtual, by_value;

  bool operator==(const Value&) const = default;
  std::int64_t elements() const { return sizes[0] * sizes[1] * sizes[2] * sizes[3]; }
};

struct Operation {
  enum class Kind : std::uint8_t { matmul, pointwise, reduction, reshape } kind;
  cudnnPointwiseMode_t mode;         // of pointwise
  cudnnReduceTensorOp_t reduction;   // of reduction
  std::int64_t axis;                 // of positions
  std::vector<std::int64_t> inputs;  // numbers of values: x, b, condition
  std::int64_t output;
  // Of a matmul: values that say how many rows, columns and summands count in each batch entry; -1:
  // all.
  std::array<std::int64_t, 3> part = {-1, -1, -1};
};

struct Graph {
  cudnnHandle_t handle;
  std::map<std::int64_t, Value> values;
  std::vector<Operation> operations;
};

/// What a finalized tensor descriptor describes; nullopt if that is impossible.
std::optional<Value> value_of(const Record& tensor);
/// Nullopt: shapes or types do not fit.
std::optional<Operation> operation_of(const Record& operation);
/// Nullopt: a value is described in two ways, computed twice, used before it is computed, or
/// computed for nothing.
std::optional<Graph> graph_of(const Record& graph);

/// True for the patterns, shapes and types that an engine was seen to take by the original.
bool supported(const Graph& graph);

/// Of a graph that is supported: the result of the first product.
const Value& scores_of(const Graph& graph);

/// The value with the lengths of the batch's rows, where the graph has one: what is stored behind
/// them is not defined.
const Value* lengths_of(const Graph& graph);

/// Bytes that its execution needs: as much as the original asks for on Hopper.
std::int64_t workspace_of(const Graph& graph);

}  // namespace tessera::emulation::cudnn
