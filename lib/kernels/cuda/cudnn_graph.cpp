// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn_graph.hpp"

#include <algorithm>
#include <utility>

namespace tessera::kernels::cuda::cudnn {
namespace {

constexpr cudnnDataType_t kSingle = CUDNN_DATA_FLOAT;

Extents broadcast(const Extents& a, const Extents& b) {
  Extents result{};
  for (std::size_t i = 0; i < result.size(); ++i) result[i] = std::max(a[i], b[i]);
  return result;
}

}  // namespace

Extents packed(const Extents& sizes) {
  return {sizes[1] * sizes[2] * sizes[3], sizes[2] * sizes[3], sizes[3], 1};
}

Value GraphBuilder::array(std::int64_t number, const Extents& sizes, const Extents& strides,
                          cudnnDataType_t type) {
  stored_.push_back(number);
  return {number, sizes, strides, type};
}

Value GraphBuilder::scalar(std::int64_t number, cudnnDataType_t type) {
  by_value_.push_back(number);
  return {number, {1, 1, 1, 1}, {1, 1, 1, 1}, type};
}

Value GraphBuilder::transposed(Value value) {
  std::swap(value.sizes[2], value.sizes[3]);
  std::swap(value.strides[2], value.strides[3]);
  return value;
}

Value GraphBuilder::intermediate(const Extents& sizes, cudnnDataType_t type) {
  return intermediate(sizes, packed(sizes), type);
}

Value GraphBuilder::intermediate(const Extents& sizes, const Extents& strides,
                                 cudnnDataType_t type) {
  return {next_++, sizes, strides, type};
}

Value GraphBuilder::matmul(const Value& a, const Value& b, const ProductPart& part) {
  const Value result = intermediate(
      {std::max(a.sizes[0], b.sizes[0]), std::max(a.sizes[1], b.sizes[1]), a.sizes[2], b.sizes[3]},
      kSingle);
  matmul(a, b, result, part);
  return result;
}

void GraphBuilder::matmul(const Value& a, const Value& b, const Value& result,
                          const ProductPart& part) {
  Descriptor kind(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  kind.set(CUDNN_ATTR_MATMUL_COMP_TYPE, kSingle).finalize();
  Descriptor& operation = add_operation(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, describe(a))
      .set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, describe(b))
      .set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, describe(result))
      .set(CUDNN_ATTR_OPERATION_MATMUL_DESC, kind);
  const auto cut = [&](cudnnBackendAttributeName_t side, const Value* length) {
    if (length != nullptr) operation.set(side, describe(*length));
  };
  cut(CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, part.rows);
  cut(CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, part.columns);
  cut(CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, part.inner);
  operation.finalize();
}

Value GraphBuilder::pointwise(cudnnPointwiseMode_t mode, const Value& x, cudnnDataType_t type) {
  const Value result = intermediate(x.sizes, type);
  add_pointwise({mode, kSingle}, x, nullptr, nullptr, result);
  return result;
}

Value GraphBuilder::pointwise(cudnnPointwiseMode_t mode, const Value& x, const Value& b,
                              cudnnDataType_t type) {
  const Value result = intermediate(broadcast(x.sizes, b.sizes), type);
  pointwise(mode, x, b, result);
  return result;
}

void GraphBuilder::pointwise(cudnnPointwiseMode_t mode, const Value& x, const Value& b,
                             const Value& result) {
  const bool whole = result.type == CUDNN_DATA_INT32 || result.type == CUDNN_DATA_BOOLEAN;
  add_pointwise({mode, whole ? result.type : kSingle}, x, &b, nullptr, result);
}

Value GraphBuilder::select(const Value& x, const Value& b, const Value& condition) {
  const Value result = intermediate(x.sizes, x.type);
  add_pointwise({CUDNN_POINTWISE_BINARY_SELECT, kSingle}, x, &b, &condition, result);
  return result;
}

Value GraphBuilder::positions(const Value& like, std::int64_t axis) {
  const Value result = intermediate(like.sizes, CUDNN_DATA_INT32);
  add_pointwise({CUDNN_POINTWISE_GEN_INDEX, kSingle, axis}, like, nullptr, nullptr, result);
  return result;
}

void GraphBuilder::reduce(cudnnReduceTensorOp_t operation, const Value& x, const Value& result) {
  Descriptor kind(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  kind.set(CUDNN_ATTR_REDUCTION_COMP_TYPE, kSingle)
      .set(CUDNN_ATTR_REDUCTION_OPERATOR, operation)
      .finalize();
  add_operation(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR)
      .set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, describe(x))
      .set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, describe(result))
      .set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, kind)
      .finalize();
}

Value GraphBuilder::reduce_rows(cudnnReduceTensorOp_t operation, const Value& x) {
  const Value result = intermediate({x.sizes[0], x.sizes[1], x.sizes[2], 1}, kSingle);
  reduce(operation, x, result);
  return result;
}

Value GraphBuilder::reshape(const Value& x, const Extents& sizes, const Extents& strides,
                            cudnnDataType_t type) {
  const Value result = intermediate(sizes, strides, type);
  add_operation(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR)
      .set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, describe(x))
      .set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, describe(result))
      .finalize();
  return result;
}

void GraphBuilder::add_pointwise(const Pointwise& kind, const Value& x, const Value* b,
                                 const Value* condition, const Value& result) {
  Descriptor mode(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  mode.set(CUDNN_ATTR_POINTWISE_MODE, kind.mode)
      .set(CUDNN_ATTR_POINTWISE_MATH_PREC, kind.precision);
  if (kind.axis >= 0) mode.set(CUDNN_ATTR_POINTWISE_AXIS, kind.axis);
  mode.finalize();
  Descriptor& operation = add_operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, mode)
      .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, describe(x))
      .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, describe(result));
  if (b != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, describe(*b));
  if (condition != nullptr)
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, describe(*condition));
  operation.finalize();
}

Descriptor& GraphBuilder::add_operation(cudnnBackendDescriptorType_t type) {
  return operations_.emplace_back(type);
}

Descriptor GraphBuilder::describe(const Value& value) const {
  const bool by_value = std::ranges::count(by_value_, value.number) > 0;
  const bool stored = by_value || std::ranges::count(stored_, value.number) > 0;
  Descriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, value.number)
      .set(CUDNN_ATTR_TENSOR_DATA_TYPE, value.type)
      .set<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS, value.sizes)
      .set<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES, value.strides)
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, std::int64_t{16})
      .set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, !stored)
      .set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, by_value)
      .finalize();
  return tensor;
}

Descriptor GraphBuilder::finish(cudnnHandle_t handle) && {
  Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  if (handle != nullptr) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // what replaces it is newer than 9.18
    graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, handle);
#pragma GCC diagnostic pop
  }
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operations_).finalize();
  return graph;
}

}  // namespace tessera::kernels::cuda::cudnn
