// SPDX-License-Identifier: Apache-2.0
#include "emulation/cudnn_graph.hpp"

#include <algorithm>
#include <set>

namespace tessera::emulation::cudnn {
namespace {

bool is_single(const Value& value) {
  return value.type == CUDNN_DATA_FLOAT;
}
bool is_half(const Value& value) {
  return value.type == CUDNN_DATA_HALF || value.type == CUDNN_DATA_BFLOAT16;
}

Value tensor(const Record& operation, cudnnBackendAttributeName_t name) {
  return *value_of(*operation.reference(name));
}

/// Each side of `from` is that of `to`, or 1.
bool repeats_to(const Extents& from, const Extents& to) {
  for (std::size_t i = 0; i < 4; ++i)
    if (from[i] != to[i] && from[i] != 1) return false;
  return true;
}

std::optional<Operation> matmul_of(const Record& record) {
  const Value a = tensor(record, CUDNN_ATTR_OPERATION_MATMUL_ADESC);
  const Value b = tensor(record, CUDNN_ATTR_OPERATION_MATMUL_BDESC);
  const Value c = tensor(record, CUDNN_ATTR_OPERATION_MATMUL_CDESC);
  const auto precision = record.reference(CUDNN_ATTR_OPERATION_MATMUL_DESC)
                             ->value<cudnnDataType_t>(CUDNN_ATTR_MATMUL_COMP_TYPE);
  const bool fits = a.sizes[0] == b.sizes[0] && a.sizes[0] == c.sizes[0] &&
                    a.sizes[1] == c.sizes[1] && a.sizes[1] % b.sizes[1] == 0 &&
                    a.sizes[2] == c.sizes[2] && b.sizes[3] == c.sizes[3] &&
                    a.sizes[3] == b.sizes[2];
  if (!fits || precision != CUDNN_DATA_FLOAT || !is_half(b)) return std::nullopt;
  Operation operation{Operation::Kind::matmul, {}, {}, -1, {a.number, b.number}, c.number};
  constexpr std::array kSides{CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC,
                              CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC,
                              CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC};
  for (std::size_t i = 0; i < kSides.size(); ++i) {
    if (!record.has(kSides[i])) continue;
    const Value lengths = tensor(record, kSides[i]);
    if (lengths.sizes != Extents{c.sizes[0], 1, 1, 1} || lengths.type != CUDNN_DATA_INT32)
      return std::nullopt;
    operation.part[i] = lengths.number;
  }
  return operation;
}

std::size_t inputs_of(cudnnPointwiseMode_t mode) {
  switch (mode) {
    case CUDNN_POINTWISE_EXP:
    case CUDNN_POINTWISE_LOG:
    case CUDNN_POINTWISE_GEN_INDEX:
      return 1;
    case CUDNN_POINTWISE_BINARY_SELECT:
      return 3;
    case CUDNN_POINTWISE_ADD:
    case CUDNN_POINTWISE_SUB:
    case CUDNN_POINTWISE_MUL:
    case CUDNN_POINTWISE_DIV:
    case CUDNN_POINTWISE_CMP_GE:
    case CUDNN_POINTWISE_CMP_LT:
    case CUDNN_POINTWISE_LOGICAL_AND:
      return 2;
    default:
      return 0;
  }
}

/// The types of a result: comparisons are boolean, positions whole numbers.
bool pointwise_types_fit(cudnnPointwiseMode_t mode, cudnnDataType_t precision,
                         const std::vector<Value>& inputs, const Value& y) {
  const auto is_boolean = [](const Value& value) { return value.type == CUDNN_DATA_BOOLEAN; };
  if (mode == CUDNN_POINTWISE_LOGICAL_AND && !std::ranges::all_of(inputs, is_boolean)) return false;
  if (mode == CUDNN_POINTWISE_CMP_GE || mode == CUDNN_POINTWISE_CMP_LT ||
      mode == CUDNN_POINTWISE_LOGICAL_AND)
    return precision == CUDNN_DATA_BOOLEAN && is_boolean(y);
  if (mode == CUDNN_POINTWISE_GEN_INDEX) return y.type == CUDNN_DATA_INT32;
  if (mode == CUDNN_POINTWISE_BINARY_SELECT && !is_boolean(inputs[2])) return false;
  if (y.type == CUDNN_DATA_INT32) return precision == CUDNN_DATA_INT32;
  return precision == CUDNN_DATA_FLOAT && (is_single(y) || is_half(y));
}

std::optional<Operation> pointwise_of(const Record& record) {
  const Record& kind = *record.reference(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
  const auto mode = kind.value<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE);
  const auto precision = kind.value<cudnnDataType_t>(CUDNN_ATTR_POINTWISE_MATH_PREC);
  const auto axis = kind.value<std::int64_t>(CUDNN_ATTR_POINTWISE_AXIS, -1);
  std::vector<Value> inputs;
  for (const auto name :
       {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_ATTR_OPERATION_POINTWISE_BDESC,
        CUDNN_ATTR_OPERATION_POINTWISE_TDESC})
    if (record.has(name)) inputs.push_back(tensor(record, name));
  const Value y = tensor(record, CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
  if (inputs_of(mode) == 0 || inputs.size() != inputs_of(mode) ||
      !pointwise_types_fit(mode, precision, inputs, y))
    return std::nullopt;
  if ((mode == CUDNN_POINTWISE_GEN_INDEX) != (axis >= 0 && axis < 4)) return std::nullopt;
  Operation operation{Operation::Kind::pointwise, mode, {}, axis, {}, y.number};
  for (const Value& input : inputs) {
    if (!repeats_to(input.sizes, y.sizes)) return std::nullopt;
    operation.inputs.push_back(input.number);
  }
  return operation;
}

std::optional<Operation> reduction_of(const Record& record) {
  const Value x = tensor(record, CUDNN_ATTR_OPERATION_REDUCTION_XDESC);
  const Value y = tensor(record, CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
  const Record& kind = *record.reference(CUDNN_ATTR_OPERATION_REDUCTION_DESC);
  for (std::size_t i = 0; i < 4; ++i)  // heads are summed in groups
    if (x.sizes[i] % y.sizes[i] != 0 || (i != 1 && x.sizes[i] != y.sizes[i] && y.sizes[i] != 1))
      return std::nullopt;
  const auto operation = kind.value<cudnnReduceTensorOp_t>(CUDNN_ATTR_REDUCTION_OPERATOR);
  if (operation != CUDNN_REDUCE_TENSOR_ADD && operation != CUDNN_REDUCE_TENSOR_MAX)
    return std::nullopt;
  if (kind.value<cudnnDataType_t>(CUDNN_ATTR_REDUCTION_COMP_TYPE) != CUDNN_DATA_FLOAT)
    return std::nullopt;
  return Operation{Operation::Kind::reduction, {}, operation, -1, {x.number}, y.number};
}

/// Only rows and columns changing places is known here.
std::optional<Operation> reshape_of(const Record& record) {
  const Value x = tensor(record, CUDNN_ATTR_OPERATION_RESHAPE_XDESC);
  const Value y = tensor(record, CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
  Value turned = x;
  std::swap(turned.sizes[2], turned.sizes[3]);
  std::swap(turned.strides[2], turned.strides[3]);
  if (turned.sizes != y.sizes || turned.strides != y.strides || !is_half(y)) return std::nullopt;
  return Operation{Operation::Kind::reshape, {}, {}, -1, {x.number}, y.number};
}

std::vector<Value> values_of(const Record& operation) {
  std::vector<Value> values;
  for (const auto& [name, attribute] : operation.attributes)
    for (const Reference& reference : attribute.references)
      if (reference->type == CUDNN_BACKEND_TENSOR_DESCRIPTOR)
        values.push_back(*value_of(*reference));
  return values;
}

/// Virtual values are computed once, before they are used, and used; others are not computed, or
/// may be used after.
bool flows(const Graph& graph) {
  std::set<std::int64_t> computed, used;
  for (const Operation& operation : graph.operations) {
    for (const std::int64_t input : operation.inputs) {
      if (graph.values.at(input).is_virtual && !computed.contains(input)) return false;
      used.insert(input);
    }
    const Value& output = graph.values.at(operation.output);
    if (output.by_value || used.contains(output.number) || !computed.insert(output.number).second)
      return false;
  }
  return std::ranges::all_of(graph.values, [&](const auto& entry) {
    return !entry.second.is_virtual || used.contains(entry.first);
  });
}

const char* letter(cudnnPointwiseMode_t mode) {
  switch (mode) {
    case CUDNN_POINTWISE_EXP:
      return "exp ";
    case CUDNN_POINTWISE_LOG:
      return "log ";
    case CUDNN_POINTWISE_GEN_INDEX:
      return "index ";
    case CUDNN_POINTWISE_BINARY_SELECT:
      return "select ";
    case CUDNN_POINTWISE_ADD:
      return "add ";
    case CUDNN_POINTWISE_SUB:
      return "sub ";
    case CUDNN_POINTWISE_MUL:
      return "mul ";
    case CUDNN_POINTWISE_DIV:
      return "div ";
    case CUDNN_POINTWISE_CMP_LT:
      return "< ";
    case CUDNN_POINTWISE_LOGICAL_AND:
      return "and ";
    default:
      return ">= ";
  }
}

std::string spelled(const Graph& graph) {
  std::string text;
  for (const Operation& operation : graph.operations) {
    if (operation.kind == Operation::Kind::matmul) text += "matmul ";
    if (operation.kind == Operation::Kind::reshape) text += "reshape ";
    if (operation.kind == Operation::Kind::reduction)
      text += operation.reduction == CUDNN_REDUCE_TENSOR_ADD ? "sum " : "max ";
    if (operation.kind == Operation::Kind::pointwise) text += letter(operation.mode);
  }
  return text;
}

enum class Pass : std::uint8_t { forward, backward };

/// With lengths, products over a head's elements have as many rows and columns, and those over
/// positions as many rows and summands, and all of the mask goes by the same lengths.
bool parts_fit(const Graph& graph) {
  const Value* lengths = lengths_of(graph);
  const std::int64_t all = -1, most = lengths != nullptr ? lengths->number : all;
  return std::ranges::all_of(graph.operations, [&](const Operation& operation) {
    if (operation.kind == Operation::Kind::pointwise && operation.mode == CUDNN_POINTWISE_CMP_LT)
      return operation.inputs[1] == most;
    if (operation.kind != Operation::Kind::matmul) return true;
    // Sums over positions have a product as their left operand.
    const bool over_positions = graph.values.at(operation.inputs[0]).is_virtual;
    return operation.part ==
           (over_positions ? std::array{most, all, most} : std::array{most, most, all});
  });
}

/// The patterns that the original's engines take.
std::optional<Pass> recognise(const Graph& graph) {
  const std::string text = spelled(graph);
  const std::string padding = lengths_of(graph) ? "index index < < and select " : "";
  if (!parts_fit(graph)) return std::nullopt;
  for (const std::string causal : {"", "index index >= select ",
                                   // queries at the end of the keys
                                   "index index add sub >= select "}) {
    if (text == "matmul mul " + padding + causal + "max sub exp sum log add div matmul ")
      return Pass::forward;
    for (const std::string heads : {"", "sum "})  // what key and value heads are shared by
      if (text == "mul sum mul matmul mul " + padding + "sub " + causal + "exp reshape matmul " +
                      heads + "matmul sub mul mul reshape matmul " + heads + "reshape matmul ")
        return Pass::backward;
  }
  return std::nullopt;
}

std::int64_t rounded(std::int64_t length) {
  return (length + 63) / 64 * 64;
}

}  // namespace

std::optional<Value> value_of(const Record& tensor) {
  Value value{.number = tensor.value<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID),
              .type = tensor.value<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE),
              .sizes = {},
              .strides = {},
              .alignment = tensor.value<std::int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT),
              .is_virtual = tensor.value<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL),
              .by_value = tensor.value<bool>(CUDNN_ATTR_TENSOR_IS_BY_VALUE)};
  std::ranges::copy(tensor.values<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS), value.sizes.begin());
  std::ranges::copy(tensor.values<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES), value.strides.begin());
  const auto positive = [](std::int64_t size) { return size > 0; };
  const bool fits = std::ranges::all_of(value.sizes, positive) &&
                    std::ranges::all_of(value.strides, positive) && value.alignment == 16 &&
                    !(value.is_virtual && value.by_value) &&
                    (!value.by_value || value.elements() == 1);
  return fits ? std::optional(value) : std::nullopt;
}

std::optional<Operation> operation_of(const Record& operation) {
  switch (operation.type) {
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
      return matmul_of(operation);
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
      return pointwise_of(operation);
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
      return reduction_of(operation);
    default:
      return reshape_of(operation);
  }
}

std::optional<Graph> graph_of(const Record& record) {
  Graph graph;
  graph.handle = record.value<cudnnHandle_t>(static_cast<cudnnBackendAttributeName_t>(800));
  for (const Reference& operation :
       record.attributes.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).references) {
    graph.operations.push_back(*operation_of(*operation));
    for (const Value& value : values_of(*operation))
      if (graph.values.try_emplace(value.number, value).first->second != value) return std::nullopt;
  }
  return flows(graph) ? std::optional(graph) : std::nullopt;
}

const Value& scores_of(const Graph& graph) {
  const auto product = std::ranges::find(graph.operations, Operation::Kind::matmul,
                                         [](const Operation& operation) { return operation.kind; });
  return graph.values.at(product->output);
}

const Value* lengths_of(const Graph& graph) {
  for (const Operation& operation : graph.operations)
    if (operation.kind == Operation::Kind::matmul && operation.part[0] >= 0)
      return &graph.values.at(operation.part[0]);
  return nullptr;
}

bool supported(const Graph& graph) {
  const auto pass = recognise(graph);
  if (!pass) return false;
  const std::int64_t widest = *pass == Pass::forward ? 256 : 128;
  for (const auto& [number, value] : graph.values) {
    if (value.is_virtual || value.by_value || !is_half(value)) continue;
    // Queries, keys and values: heads side by side, rows of whole vectors.
    const std::int64_t width = value.strides[3] == 1 ? value.sizes[3] : value.sizes[2];
    if ((value.strides[2] != 1 && value.strides[3] != 1) || width % 8 != 0 || width > widest)
      return false;
  }
  return true;
}

std::int64_t workspace_of(const Graph& graph) {
  if (recognise(graph) == Pass::forward) return 64;
  const Extents& sizes = scores_of(graph).sizes;
  return sizes[0] * sizes[1] * rounded(sizes[2]) * rounded(sizes[3]) * 2 + 128;
}

}  // namespace tessera::emulation::cudnn
